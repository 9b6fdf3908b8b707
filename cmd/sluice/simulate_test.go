package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

// untilSaid ends a context when a text is written to it.
type untilSaid struct {
	bytes.Buffer
	text string
	end  context.CancelFunc
}

func (u *untilSaid) Write(p []byte) (int, error) {
	n, err := u.Buffer.Write(p)
	if strings.Contains(u.String(), u.text) {
		u.end()
	}
	return n, err
}

// TestSimulate: a site runs as it is, without its serial port, its broker, its
// secrets and its buffer file.
func TestSimulate(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out := &untilSaid{text: `"press4_voltage_l1":`, end: cancel}
	if err := simulate(ctx, "../../configs/energy-meter.yaml", true, out, t.Output()); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"simulated bus rs485-1: modbus-rtu at /", `  attributes/press-shop  {"`, out.text} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
	if _, _, err := execute(t, "simulate", "testdata/none.yaml"); err != errFound {
		t.Errorf("a file that is not there: %v", err)
	}
}
