package modbus_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/adapters/modbus"
	"sluice/adapters/sim"
	"sluice/buffer"
	"sluice/gateway"
)

// BenchmarkHalfOfTheUnitsDead measures with real frames at 9,600 Bd how much
// longer the cycle of 8 healthy units is when 8 more on the line fall silent:
// in the first minute, and later. It takes four and a half minutes.
func BenchmarkHalfOfTheUnitsDead(b *testing.B) {
	for range b.N {
		alone := healthyReads(b, 8)
		half := healthyReads(b, 16)
		b.ReportMetric(alone[0]/half[0], "first-minute-ratio")
		b.ReportMetric(alone[1]/half[1], "later-ratio")
	}
}

// healthyReads polls some units, of which those beyond the eighth fall silent
// after 5 s, and gives how often the healthy ones were read in a second: from
// 15 s to a minute, and in the minute after that.
func healthyReads(b *testing.B, units int) (rate [2]float64) {
	profile := &gateway.Profile{Name: "p", Protocol: "modbus", Addressing: "protocol", Table: "input"}
	for i := range 10 {
		profile.Points = append(profile.Points, &gateway.Definition{ID: fmt.Sprint("p", i), At: fmt.Sprint(i), Type: gateway.Uint16, Poll: 100 * time.Millisecond, Report: gateway.Reporting{Mode: "always"}})
	}
	bus := &gateway.Bus{Name: "line", Type: "modbus-rtu", Line: "9600 8N1", Port: "unset", Timeout: 500 * time.Millisecond, Retries: 1, Offline: gateway.Offline{After: 3, Probe: 10 * time.Second, ProbeMax: time.Minute}}
	site := &gateway.Site{Buses: []*gateway.Bus{bus}}
	for i := range units {
		d := &gateway.Device{Name: fmt.Sprintf("u%02d", i), Profile: profile, Bus: bus, Unit: i + 1, User: "u"}
		for _, def := range profile.Points {
			d.Points = append(d.Points, &gateway.Point{Definition: def, Device: d, Name: d.Name + "_" + def.ID})
		}
		site.Devices = append(site.Devices, d)
	}
	field, site, err := sim.Start(site, sim.Options{LineSpeed: true})
	if err != nil {
		b.Fatal(err)
	}
	defer field.Close()
	store, err := buffer.Open(filepath.Join(b.TempDir(), "buffer.db"), buffer.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	var mu sync.Mutex
	reads := 0
	gate, err := gateway.New(gateway.Config{
		Site: site, Log: slog.New(slog.DiscardHandler), Buffer: store, Adapters: map[string]gateway.NewAdapter{"modbus": modbus.New},
		OnReport: func(_ string, r gateway.Record) {
			mu.Lock()
			defer mu.Unlock()
			if strings.Compare(r.Values[0].Name, "u08") < 0 {
				reads++
			}
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	ended := make(chan struct{})
	go func() { defer close(ended); gate.Run(ctx) }()
	count := func(after time.Duration) float64 {
		mu.Lock()
		before := reads
		mu.Unlock()
		time.Sleep(after)
		mu.Lock()
		defer mu.Unlock()
		return float64(reads-before) / after.Seconds()
	}
	time.Sleep(5 * time.Second)
	for i := 9; i <= units; i++ {
		if err := field.Silent("line", i, true); err != nil {
			b.Fatal(err)
		}
	}
	time.Sleep(10 * time.Second)
	rate[0] = count(45 * time.Second)
	time.Sleep(10 * time.Second)
	rate[1] = count(time.Minute)
	stop()
	<-ended
	return rate
}
