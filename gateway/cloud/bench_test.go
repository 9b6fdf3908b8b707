package cloud_test

import (
	"strings"
	"testing"

	"sluice/gateway"
	"sluice/gateway/cloud"
	"sluice/gateway/cloud/twin"
)

// Reports of about 200 bytes, confirmed by PUBACK or by answers.
func BenchmarkPublish(b *testing.B) {
	for _, c := range []struct {
		name, confirm string
		url           func() string
	}{
		{"twin/puback", "puback", func() string { return startTwin(b, twin.Options{Keep: 1000}).URL() }},
		{"twin/response", "response", func() string { return startTwin(b, twin.Options{Keep: 1000, Respond: true}).URL() }},
		{"mosquitto/puback", "puback", func() string { return mosquitto(b) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			s, _ := run(b, settings(c.url(), c.confirm, func(c *cloud.Config) { c.Log = quiet }), nil)
			eventually(b, "connected", connected(s))
			records := numbered(0, 1000)
			for i := range records {
				records[i].Values = append(records[i].Values, gateway.Attribute{Name: "text", Value: gateway.TextValue(strings.Repeat("x", 180))})
			}
			b.ReportAllocs()
			b.ResetTimer()
			for left := b.N; left > 0; {
				n, err := s.Publish(b.Context(), records[:min(left, len(records))])
				if err != nil {
					b.Fatal(err)
				}
				left -= n
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}
