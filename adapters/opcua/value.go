package opcua

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"

	"sluice/gateway"
)

// decode makes the raw value of a point of what its node holds.
func (n *node) decode(v any) (gateway.Value, error) {
	if v == nil {
		return gateway.Value{}, nil
	}
	if n.point.Count == 0 && !isArray(v) {
		return n.element(v)
	}
	list, err := n.list(v)
	if err != nil {
		return gateway.Value{}, err
	}
	switch {
	case n.point.Count > 0 && len(list) == n.point.Count:
		return gateway.ListValue(list), nil
	case n.point.Count > 0:
		return gateway.Value{}, fmt.Errorf("the node holds %d values, the point says count: %d", len(list), n.point.Count)
	case n.address.Range != "" && len(list) == 1:
		return list[0], nil
	}
	return gateway.Value{}, fmt.Errorf("the node holds an array of %d values: write count: %d, or [0] behind the node for one of them", len(list), len(list))
}

// isArray tells whether a value is one; a ByteString is none.
func isArray(v any) bool {
	switch v.(type) {
	case bool, int8, uint8, int16, uint16, int32, uint32, int64, uint64, float32, float64, string, time.Time, []byte:
		return false
	}
	return reflect.TypeOf(v).Kind() == reflect.Slice
}

// list decodes an array; one of several dimensions row by row.
func (n *node) list(v any) ([]gateway.Value, error) {
	if !isArray(v) {
		x, err := n.element(v)
		return []gateway.Value{x}, err
	}
	array := reflect.ValueOf(v)
	if n.point.Type == gateway.Bytes && n.point.Count == 0 && array.Type().Elem().Kind() == reflect.Uint8 {
		return []gateway.Value{gateway.BlobValue(array.Bytes())}, nil
	}
	values := make([]gateway.Value, 0, array.Len())
	for i := range array.Len() {
		inner, err := n.list(array.Index(i).Interface())
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		values = append(values, inner...)
	}
	return values, nil
}

// element decodes one value and makes it one of the point's type; None where
// the node has no value.
func (n *node) element(v any) (gateway.Value, error) {
	raw, err := natural(v)
	if err != nil || raw.Kind() == gateway.None {
		return raw, err
	}
	if n.labels != nil && n.point.Type == gateway.String && raw.Numeric() {
		if label, ok := n.labels[raw.Int()]; ok {
			return gateway.TextValue(label), nil
		}
	}
	fitted, ok := fit(raw, n.point.Definition)
	if !ok {
		return gateway.Value{}, fmt.Errorf("the node holds %s, the point is %s", holds(raw), n.point.Type)
	}
	return fitted, nil
}

// holds is a value with the kind that it has, for an error.
func holds(v gateway.Value) string {
	return map[gateway.Kind]string{
		gateway.Boolean: "the boolean ", gateway.Signed: "the whole number ", gateway.Unsigned: "the whole number ", gateway.Single: "the float ",
		gateway.Double: "the float ", gateway.Text: "the text ", gateway.Blob: "the bytes ", gateway.Moment: "the time ",
	}[v.Kind()] + v.String()
}

// natural is a scalar of OPC UA as what it is.
func natural(v any) (gateway.Value, error) {
	switch v := v.(type) {
	case nil:
		return gateway.Value{}, nil
	case bool:
		return gateway.BoolValue(v), nil
	case int8:
		return gateway.IntValue(int64(v)), nil
	case int16:
		return gateway.IntValue(int64(v)), nil
	case int32:
		return gateway.IntValue(int64(v)), nil
	case int64:
		return gateway.IntValue(v), nil
	case uint8:
		return gateway.UintValue(uint64(v)), nil
	case uint16:
		return gateway.UintValue(uint64(v)), nil
	case uint32:
		return gateway.UintValue(uint64(v)), nil
	case uint64:
		return gateway.UintValue(v), nil
	case float32:
		return gateway.Float32Value(v), nil
	case float64:
		return gateway.FloatValue(v), nil
	case string:
		return gateway.TextValue(v), nil
	case time.Time:
		if v.IsZero() {
			return gateway.Value{}, nil // OPC UA's way to say: no time
		}
		return gateway.TimeValue(v), nil
	case []byte:
		return gateway.BlobValue(v), nil
	case *ua.Variant:
		return natural(v.Value())
	case *ua.DataValue:
		return natural(v.Value.Value())
	}
	return named(v)
}

// named is a scalar that is reported as text.
func named(v any) (gateway.Value, error) {
	switch v := v.(type) {
	case *ua.LocalizedText:
		return gateway.TextValue(v.Text), nil
	case *ua.GUID:
		return gateway.TextValue(strings.ToLower(v.String())), nil
	case *ua.QualifiedName:
		return gateway.TextValue(v.Name), nil
	case *ua.NodeID:
		return gateway.TextValue(v.String()), nil
	case *ua.ExpandedNodeID:
		return gateway.TextValue(v.String()), nil
	case ua.XMLElement:
		return gateway.TextValue(string(v)), nil
	case ua.StatusCode:
		return gateway.TextValue(statusName(v)), nil
	case *ua.ExtensionObject:
		return gateway.Value{}, fmt.Errorf("the node holds a structure: name the nodes of its fields")
	}
	return gateway.Value{}, fmt.Errorf("the node holds a %T, which can't be reported", v)
}

// whole are the limits of the types of whole numbers.
var whole = map[gateway.Type]struct {
	min int64
	max uint64
}{
	gateway.Int8: {math.MinInt8, math.MaxInt8}, gateway.Int16: {math.MinInt16, math.MaxInt16},
	gateway.Int32: {math.MinInt32, math.MaxInt32}, gateway.Int64: {math.MinInt64, math.MaxInt64},
	gateway.Uint8: {0, math.MaxUint8}, gateway.Uint16: {0, math.MaxUint16},
	gateway.Uint32: {0, math.MaxUint32}, gateway.Uint64: {0, math.MaxUint64},
}

// fit makes a value one of the point's type, without changing what it says.
func fit(raw gateway.Value, d *gateway.Definition) (gateway.Value, bool) {
	kind := raw.Kind()
	integer := kind == gateway.Signed || kind == gateway.Unsigned
	switch d.Type {
	case gateway.Bool:
		return raw, kind == gateway.Boolean || integer
	case gateway.Float32:
		if kind == gateway.Single {
			return raw, true
		}
		return gateway.Float32Value(float32(raw.Float())), raw.Numeric()
	case gateway.Float64:
		return raw, raw.Numeric()
	case gateway.String:
		return gateway.TextValue(raw.String()), true
	case gateway.Bytes:
		return raw, kind == gateway.Blob
	case gateway.Time:
		return raw, kind == gateway.Moment
	case gateway.Flags:
		return gateway.TextValue(flagNames(uint64(raw.Int()), d.Flags)), integer
	}
	return fitWhole(raw, d.Type)
}

// fitWhole makes a whole number of a number or a boolean, where it is one and
// within the limits.
func fitWhole(raw gateway.Value, t gateway.Type) (gateway.Value, bool) {
	limits, ok := whole[t]
	if !ok {
		return gateway.Value{}, false
	}
	n := raw.Int()
	switch raw.Kind() {
	case gateway.Single, gateway.Double:
		f := raw.Float()
		if f != math.Trunc(f) || math.Abs(f) >= 1<<63 {
			return gateway.Value{}, false
		}
	case gateway.Unsigned:
		if raw.Uint() > limits.max {
			return gateway.Value{}, false
		}
		if limits.min == 0 || raw.Uint() > math.MaxInt64 {
			return raw, true
		}
	case gateway.Signed, gateway.Boolean:
	default:
		return gateway.Value{}, false
	}
	if n < limits.min || n > 0 && uint64(n) > limits.max {
		return gateway.Value{}, false
	}
	if limits.min == 0 {
		return gateway.UintValue(uint64(n)), true
	}
	return gateway.IntValue(n), true
}

// flagNames lists the bits that are set, by name.
func flagNames(bits uint64, names map[int]string) string {
	var set []string
	for bit := range 64 {
		if bits>>bit&1 == 0 {
			continue
		}
		name, ok := names[bit]
		if !ok {
			name = fmt.Sprintf("bit%d", bit)
		}
		set = append(set, name)
	}
	return strings.Join(set, ",")
}
