package gateway

import (
	"fmt"
	"strings"
	"time"
)

// Expression is a condition or a formula over the points of a device; package
// site types it against them when the file is loaded.
type Expression struct{ Text string }

// UnmarshalText keeps the text.
func (e *Expression) UnmarshalText(text []byte) error {
	e.Text = string(text)
	if strings.TrimSpace(e.Text) == "" {
		return fmt.Errorf("an expression is missing")
	}
	return nil
}

// Span is a time, or a number of samples; at least two samples in any case.
type Span struct {
	Time    time.Duration
	Samples int
}

// UnmarshalText reads 3s or 3 samples.
func (s *Span) UnmarshalText(text []byte) error {
	count, ok := strings.CutSuffix(string(text), "samples")
	if !ok {
		d, err := ParseDuration(string(text))
		*s = Span{Time: d}
		return err
	}
	n, err := ParseInt(strings.TrimSpace(count))
	if err != nil || n < 1 || n > 1000 {
		return fmt.Errorf("%q is not a number of samples from 1 to 1000 such as 3 samples", text)
	}
	*s = Span{Samples: int(n)}
	return nil
}

// Hold says how long a condition must hold before an event is raised, and
// before it is cleared.
type Hold struct {
	// Before it is raised: 3s or 3 samples.
	Raise Span `yaml:"raise"`
	// Before it is cleared: 30s or 3 samples.
	Clear Span `yaml:"clear"`
}

// UnmarshalText reads one span for both.
func (h *Hold) UnmarshalText(text []byte) error {
	err := h.Raise.UnmarshalText(text)
	h.Clear = h.Raise
	return err
}
