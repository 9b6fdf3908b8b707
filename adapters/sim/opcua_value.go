//go:build !lean

package sim

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/awcullen/opcua/ua"

	"sluice/gateway"
)

// wireType is how a type of the site language goes over an OPC UA connection.
type wireType struct {
	id       ua.NodeID
	integer  bool
	min, max float64
	bits     int
}

var wireTypes = map[gateway.Type]wireType{
	gateway.Bool:    {id: ua.DataTypeIDBoolean},
	gateway.Int8:    {ua.DataTypeIDSByte, true, math.MinInt8, math.MaxInt8, 8},
	gateway.Uint8:   {ua.DataTypeIDByte, true, 0, math.MaxUint8, 8},
	gateway.Int16:   {ua.DataTypeIDInt16, true, math.MinInt16, math.MaxInt16, 16},
	gateway.Uint16:  {ua.DataTypeIDUInt16, true, 0, math.MaxUint16, 16},
	gateway.Int32:   {ua.DataTypeIDInt32, true, math.MinInt32, math.MaxInt32, 32},
	gateway.Uint32:  {ua.DataTypeIDUInt32, true, 0, math.MaxUint32, 32},
	gateway.Int64:   {ua.DataTypeIDInt64, true, math.MinInt64, math.MaxInt64, 64},
	gateway.Uint64:  {ua.DataTypeIDUInt64, true, 0, math.MaxUint64, 64},
	gateway.Float32: {id: ua.DataTypeIDFloat},
	gateway.Float64: {id: ua.DataTypeIDDouble},
	gateway.String:  {id: ua.DataTypeIDString},
	gateway.Bytes:   {id: ua.DataTypeIDByteString},
	gateway.Time:    {id: ua.DataTypeIDDateTime},
}

// kindOf is the type of a node that has room for a point.
func kindOf(d *gateway.Definition) (gateway.Type, error) {
	need, signed := 0, false
	switch {
	case d.Type == gateway.Flags:
		need = min(64, 8*d.Length)
	case d.Bit != nil:
		need = *d.Bit + 1
	case d.Bits != nil:
		need = d.Bits.High + 1
	}
	t, known := wireTypes[d.Type]
	switch {
	case need == 0 && known:
		return d.Type, nil
	case !known && d.Type != gateway.Flags:
		return "", fmt.Errorf("type %s is not simulated in an OPC UA server", d.Type)
	}
	signed = t.min < 0
	for _, kind := range []gateway.Type{gateway.Uint8, gateway.Uint16, gateway.Uint32, gateway.Uint64} {
		if bits := wireTypes[kind].bits; bits >= need && bits >= t.bits {
			if signed {
				return gateway.Type(strings.TrimPrefix(string(kind), "u")), nil
			}
			return kind, nil
		}
	}
	return gateway.Uint64, nil
}

// wider is the type that has room for both.
func wider(a, b gateway.Type) (gateway.Type, error) {
	switch x, y := wireTypes[a], wireTypes[b]; {
	case a == b || x.integer && y.integer && x.bits >= y.bits:
		return a, nil
	case x.integer && y.integer:
		return b, nil
	}
	return "", fmt.Errorf("one node can't be both %s and %s", a, b)
}

// fit makes a raw value one of a node's type.
func fit(kind gateway.Type, v gateway.Value) (gateway.Value, error) {
	numeric := v.Numeric() || v.Kind() == gateway.Boolean
	switch t := wireTypes[kind]; {
	case t.integer && numeric:
		return fitInteger(kind, t, v)
	case kind == gateway.Bool && numeric:
		return gateway.BoolValue(v.Float() != 0), nil
	case kind == gateway.Float32 && numeric:
		return gateway.Float32Value(float32(v.Float())), nil
	case kind == gateway.Float64 && numeric:
		return gateway.FloatValue(v.Float()), nil
	case kind == gateway.String && v.Kind() == gateway.Text,
		kind == gateway.Bytes && v.Kind() == gateway.Blob,
		kind == gateway.Time && v.Kind() == gateway.Moment:
		return v, nil
	}
	return v, fmt.Errorf("%s is no %s", v, kind)
}

func fitInteger(kind gateway.Type, t wireType, v gateway.Value) (gateway.Value, error) {
	tooLarge := v.Kind() == gateway.Unsigned && t.bits == 64 && t.min < 0 && v.Uint() > math.MaxInt64
	if f := v.Float(); f < t.min || f > t.max || tooLarge {
		return v, fmt.Errorf("%s does not fit into %s", v, kind)
	}
	if t.min < 0 {
		return gateway.IntValue(v.Int()), nil
	}
	if v.Kind() == gateway.Unsigned {
		return v, nil
	}
	return gateway.UintValue(uint64(v.Int())), nil
}

// variant is what goes over the wire for raw values that fit.
func variant(kind gateway.Type, raw []gateway.Value, array bool) ua.Variant {
	switch kind {
	case gateway.Bool:
		return pack(raw, array, gateway.Value.Bool)
	case gateway.Int8:
		return pack(raw, array, func(v gateway.Value) int8 { return int8(v.Int()) })
	case gateway.Int16:
		return pack(raw, array, func(v gateway.Value) int16 { return int16(v.Int()) })
	case gateway.Int32:
		return pack(raw, array, func(v gateway.Value) int32 { return int32(v.Int()) })
	case gateway.Int64:
		return pack(raw, array, gateway.Value.Int)
	case gateway.Uint8:
		return pack(raw, array, func(v gateway.Value) uint8 { return uint8(v.Uint()) })
	case gateway.Uint16:
		return pack(raw, array, func(v gateway.Value) uint16 { return uint16(v.Uint()) })
	case gateway.Uint32:
		return pack(raw, array, func(v gateway.Value) uint32 { return uint32(v.Uint()) })
	case gateway.Uint64:
		return pack(raw, array, gateway.Value.Uint)
	case gateway.Float32:
		return pack(raw, array, func(v gateway.Value) float32 { return float32(v.Float()) })
	case gateway.Float64:
		return pack(raw, array, gateway.Value.Float)
	case gateway.Bytes:
		return pack(raw, array, func(v gateway.Value) ua.ByteString { return ua.ByteString(v.Text()) })
	case gateway.Time:
		return pack(raw, array, func(v gateway.Value) time.Time { return time.UnixMilli(v.Int()).UTC() })
	}
	return pack(raw, array, gateway.Value.Text)
}

func pack[T any](raw []gateway.Value, array bool, one func(gateway.Value) T) ua.Variant {
	if !array {
		return one(raw[0])
	}
	all := make([]T, len(raw))
	for i, v := range raw {
		all[i] = one(v)
	}
	return all
}

// values are the raw values that came over the wire; none for what no point can
// hold.
func values(v ua.Variant) []gateway.Value {
	r := reflect.ValueOf(v)
	if r.Kind() != reflect.Slice {
		r = reflect.ValueOf([]any{v})
	}
	all := make([]gateway.Value, r.Len())
	for i := range all {
		if all[i] = value(r.Index(i).Interface()); all[i].Kind() == gateway.None {
			return nil
		}
	}
	return all
}

// value is a single one, or nothing.
func value(v any) gateway.Value {
	switch v := v.(type) {
	case ua.ByteString:
		return gateway.BlobValue([]byte(v))
	case time.Time:
		return gateway.TimeValue(v)
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Bool:
		return gateway.BoolValue(r.Bool())
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return gateway.IntValue(r.Int())
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return gateway.UintValue(r.Uint())
	case reflect.Float32:
		return gateway.Float32Value(float32(r.Float()))
	case reflect.Float64:
		return gateway.FloatValue(r.Float())
	case reflect.String:
		return gateway.TextValue(r.String())
	}
	return gateway.Value{}
}

// packFlags makes the number of the names of its bits.
func packFlags(names gateway.Value, d *gateway.Definition) (gateway.Value, error) {
	bits := uint64(0)
	if names.Text() == "" {
		return gateway.UintValue(0), nil
	}
next:
	for name := range strings.SplitSeq(names.Text(), ",") {
		for bit := range min(64, 8*d.Length) {
			if flagName(bit, d) == strings.TrimSpace(name) {
				bits |= 1 << bit
				continue next
			}
		}
		return gateway.Value{}, fmt.Errorf("%q is not one of the flags", name)
	}
	return gateway.UintValue(bits), nil
}

func flagNames(bits uint64, d *gateway.Definition) string {
	var set []string
	for bit := range 64 {
		if bits>>bit&1 != 0 {
			set = append(set, flagName(bit, d))
		}
	}
	return strings.Join(set, ",")
}

func flagName(bit int, d *gateway.Definition) string {
	if name, ok := d.Flags[bit]; ok {
		return name
	}
	return fmt.Sprintf("bit%d", bit)
}

// empty is what a node holds before anything is put into it.
func empty(kind gateway.Type) gateway.Value {
	switch kind {
	case gateway.String:
		return gateway.TextValue("")
	case gateway.Bytes:
		return gateway.BlobValue(nil)
	case gateway.Time:
		return gateway.TimeValue(time.Unix(0, 0))
	}
	v, _ := fit(kind, gateway.IntValue(0))
	return v
}
