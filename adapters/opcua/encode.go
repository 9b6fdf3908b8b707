package opcua

import (
	"fmt"
	"math"
	"reflect"
	"time"

	"github.com/gopcua/opcua/ua"

	"sluice/gateway"
)

// encode makes a value in engineering units what the node takes.
func (n *node) encode(value gateway.Value) (*ua.Variant, error) {
	raw := value
	if n.labels == nil || value.Kind() != gateway.Text {
		var err error
		if raw, err = n.conversion.Raw(value, 0); err != nil {
			return nil, err
		}
	}
	if n.typ == ua.TypeIDNull {
		return nil, fmt.Errorf("the type of the node is not known")
	}
	list := raw.List()
	if raw.Kind() != gateway.List {
		list = []gateway.Value{raw}
	}
	elements := make([]any, len(list))
	for i, x := range list {
		element, err := n.encodeElement(x)
		if err != nil {
			return nil, err
		}
		elements[i] = element
	}
	if raw.Kind() != gateway.List && n.address.Range == "" {
		return ua.NewVariant(elements[0])
	}
	if len(elements) == 0 {
		return nil, fmt.Errorf("an empty list can't be written")
	}
	return ua.NewVariant(sliceOf(elements))
}

// sliceOf makes []T of values that are all of type T.
func sliceOf(elements []any) any {
	element := reflect.TypeOf(elements[0])
	array := reflect.MakeSlice(reflect.SliceOf(element), 0, len(elements))
	for _, x := range elements {
		array = reflect.Append(array, reflect.ValueOf(x))
	}
	if element.Kind() == reflect.Uint8 {
		return ua.ByteArray(array.Bytes()) // []byte would be a ByteString
	}
	return array.Interface()
}

// encodeElement makes one value of the node's type, or says that it does not
// fit.
func (n *node) encodeElement(raw gateway.Value) (any, error) {
	if raw.Kind() == gateway.Text && n.labels != nil {
		for number, label := range n.labels {
			if label == raw.Text() {
				raw = gateway.IntValue(number)
			}
		}
	}
	if v, ok := encodeAs(raw, n.typ); ok {
		return v, nil
	}
	return nil, fmt.Errorf("%s does not fit a node of type %s", raw, typeName(n.typ))
}

// encodeAs makes a value of a built-in type, where it is one.
func encodeAs(raw gateway.Value, t ua.TypeID) (any, bool) {
	switch t {
	case ua.TypeIDBoolean:
		return raw.Bool(), raw.Kind() == gateway.Boolean
	case ua.TypeIDFloat:
		f := float32(raw.Float())
		return f, raw.Numeric() && !math.IsInf(float64(f), 0)
	case ua.TypeIDDouble:
		return raw.Float(), raw.Numeric()
	case ua.TypeIDString:
		return raw.Text(), raw.Kind() == gateway.Text
	case ua.TypeIDLocalizedText:
		return ua.NewLocalizedText(raw.Text()), raw.Kind() == gateway.Text
	case ua.TypeIDXMLElement:
		return ua.XMLElement(raw.Text()), raw.Kind() == gateway.Text
	case ua.TypeIDGUID:
		return ua.NewGUID(raw.Text()), guid.MatchString(raw.Text())
	case ua.TypeIDByteString:
		return []byte(raw.Text()), raw.Kind() == gateway.Blob
	case ua.TypeIDDateTime:
		return time.UnixMilli(raw.Int()).UTC(), raw.Kind() == gateway.Moment
	}
	return encodeWhole(raw, t)
}

// wholes are the built-in types of whole numbers.
var wholes = map[ua.TypeID]gateway.Type{
	ua.TypeIDSByte: gateway.Int8, ua.TypeIDInt16: gateway.Int16, ua.TypeIDInt32: gateway.Int32, ua.TypeIDInt64: gateway.Int64,
	ua.TypeIDByte: gateway.Uint8, ua.TypeIDUint16: gateway.Uint16, ua.TypeIDUint32: gateway.Uint32, ua.TypeIDUint64: gateway.Uint64,
}

func encodeWhole(raw gateway.Value, t ua.TypeID) (any, bool) {
	if raw.Kind() == gateway.Boolean {
		return nil, false
	}
	v, ok := fitWhole(raw, wholes[t])
	if !ok {
		return nil, false
	}
	switch t {
	case ua.TypeIDSByte:
		return int8(v.Int()), true
	case ua.TypeIDInt16:
		return int16(v.Int()), true
	case ua.TypeIDInt32:
		return int32(v.Int()), true
	case ua.TypeIDInt64:
		return v.Int(), true
	case ua.TypeIDByte:
		return uint8(v.Uint()), true
	case ua.TypeIDUint16:
		return uint16(v.Uint()), true
	case ua.TypeIDUint32:
		return uint32(v.Uint()), true
	}
	return v.Uint(), true
}

// typeName is the name of a built-in type.
func typeName(t ua.TypeID) string {
	names := [...]string{"Null", "Boolean", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double", "String", "DateTime",
		"Guid", "ByteString", "XmlElement", "NodeId", "ExpandedNodeId", "StatusCode", "QualifiedName", "LocalizedText", "ExtensionObject", "DataValue", "Variant"}
	if int(t) < len(names) {
		return names[t]
	}
	return fmt.Sprintf("type %d", t)
}
