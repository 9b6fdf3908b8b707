package opcua_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"sluice/gateway"
)

// variables gives the variables of a server in engineering units, worked out
// without the adapter.
type variables struct{ server *plantServer }

// id is the variable of a point.
func (v *variables) id(p *gateway.Point) string {
	if p.Browse != "" {
		return p.Device.Name + "." + p.ID
	}
	return strings.TrimSuffix(strings.TrimPrefix(p.Node, "s="), "[1]")
}

func (v *variables) set(t testing.TB, p *gateway.Point, value gateway.Value) {
	t.Helper()
	if strings.HasSuffix(p.Node, "[1]") || p.Bit != nil {
		return // the whole is set by another point, or never
	}
	conversion, err := gateway.NewConversion(p.Definition)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := conversion.Raw(value, 0)
	if err != nil {
		t.Fatal(err)
	}
	id := v.id(p)
	held := v.server.node(t, id).Value().Value
	if raw.Kind() != gateway.List {
		v.server.set(t, id, goValue(raw, reflect.TypeOf(held)))
		return
	}
	list := reflect.MakeSlice(reflect.TypeOf(held), 0, 0)
	for _, x := range raw.List() {
		list = reflect.Append(list, reflect.ValueOf(goValue(x, list.Type().Elem())))
	}
	v.server.set(t, id, list.Interface())
}

// goValue makes a value of a Go type.
func goValue(raw gateway.Value, t reflect.Type) any {
	switch t {
	case reflect.TypeFor[time.Time]():
		return time.UnixMilli(raw.Int()).UTC()
	case reflect.TypeFor[string]():
		return raw.Text()
	case reflect.TypeFor[bool]():
		return raw.Bool()
	case reflect.TypeFor[float32](), reflect.TypeFor[float64]():
		return reflect.ValueOf(raw.Float()).Convert(t).Interface()
	}
	return reflect.ValueOf(raw.Int()).Convert(t).Interface()
}

func (v *variables) get(t testing.TB, p *gateway.Point) gateway.Value {
	t.Helper()
	held := reflect.ValueOf(v.server.node(t, v.id(p)).Value().Value)
	if strings.HasSuffix(p.Node, "[1]") {
		held = held.Index(1)
	}
	raw := gatewayValue(held)
	conversion, err := gateway.NewConversion(p.Definition)
	if err != nil {
		t.Fatal(err)
	}
	value, _, _ := conversion.Engineering(raw, 0)
	return value
}

func gatewayValue(held reflect.Value) gateway.Value {
	switch {
	case held.Type() == reflect.TypeFor[time.Time]():
		return gateway.TimeValue(held.Interface().(time.Time))
	case held.Kind() == reflect.Slice:
		list := make([]gateway.Value, held.Len())
		for i := range list {
			list[i] = gatewayValue(held.Index(i))
		}
		return gateway.ListValue(list)
	case held.Kind() == reflect.String:
		return gateway.TextValue(held.String())
	case held.Kind() == reflect.Bool:
		return gateway.BoolValue(held.Bool())
	case held.Kind() == reflect.Float32:
		return gateway.Float32Value(float32(held.Float()))
	case held.CanFloat():
		return gateway.FloatValue(held.Float())
	case held.CanUint():
		return gateway.UintValue(held.Uint())
	}
	return gateway.IntValue(held.Int())
}
