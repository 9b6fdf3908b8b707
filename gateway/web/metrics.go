package web

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sluice/gateway"
)

// metrics serves what Prometheus scrapes: each scrape is one snapshot.
func (s *Server) metrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{s}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 2})
}

// collector makes metrics of a snapshot.
type collector struct{ server *Server }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sluice_"+name, help, labels, nil)
}

var (
	buildInfo = desc("build_info", "The running program; always 1.", "version", "site")

	busUp       = desc("bus_up", "Whether the bus answers.", "bus", "type")
	busRequests = desc("bus_requests_total", "Requests sent to the field.", "bus")
	busValues   = desc("bus_values_total", "Values that requests asked for, or devices told by themselves.", "bus")
	busBusy     = desc("bus_busy_seconds_total", "Time spent in requests; its rate is the utilisation of the bus.", "bus")
	busOverruns = desc("bus_overruns_total", "Polls skipped because the bus was late.", "bus")

	deviceUp     = desc("device_up", "Whether at least one point of the device has a value.", "device", "bus")
	devicePoints = desc("device_points", "Points of the device.", "device", "bus")
	deviceBad    = desc("device_bad_points", "Points of the device that were read and have no value.", "device", "bus")

	cloudConnected = desc("cloud_connected", "Whether the user's session with the broker is up.", "user")
	cloudConfirmed = desc("cloud_confirmed_records_total", "Records that the cloud confirmed.", "user")
	cloudWaiting   = desc("cloud_waiting_records", "Records that wait for the cloud.", "user")
	cloudPace      = desc("cloud_pace_seconds", "Shortest time between two messages now.", "user")

	reports   = desc("reports_total", "Reports of the field put into the buffer.")
	confirmed = desc("messages_confirmed_total", "Messages that the cloud confirmed; each may hold several reports.")
	tooFast   = desc("messages_too_fast_total", "Messages that the cloud ignored because they came too soon.")
	downlinks = desc("downlinks_total", "Messages of the cloud.")

	bufferWaiting     = desc("buffer_waiting_records", "Records in the buffer.")
	bufferPending     = desc("buffer_pending_records", "Records in the buffer that are not on disk yet.")
	bufferSize        = desc("buffer_size_bytes", "Size of the buffer file.")
	bufferLimit       = desc("buffer_limit_bytes", "Size that the buffer file never exceeds.")
	bufferAppended    = desc("buffer_appended_records_total", "Records put into the buffer.")
	bufferAcked       = desc("buffer_acknowledged_records_total", "Records that left the buffer because the cloud confirmed them.")
	bufferDropped     = desc("buffer_dropped_records_total", "Records that were lost, by cause.", "cause")
	bufferQuarantined = desc("buffer_quarantined_records_total", "Records put aside because the cloud refused them.")
	bufferEvicted     = desc("buffer_quarantine_lost_records_total", "Records put aside that made room for newer ones.")
	bufferCommits     = desc("buffer_commits_total", "Transactions written to the disk.")
	bufferFailures    = desc("buffer_commit_failures_total", "Transactions that failed.")
	bufferFailing     = desc("buffer_failing", "Whether the disk can't be written now.")
)

// Describe leaves the metrics to be found: their labels depend on the site.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect makes all metrics.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s := c.server
	snap := s.Gateway.Snapshot(context.Background())
	send := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, kind, value, labels...)
	}
	send(buildInfo, prometheus.GaugeValue, 1, s.Version, s.Site.Name)
	for _, b := range snap.Buses {
		collectBus(send, b)
	}
	for _, c := range s.cloudOf(snap) {
		send(cloudConnected, prometheus.GaugeValue, truth(!c.Connected.IsZero()), c.User)
		send(cloudConfirmed, prometheus.CounterValue, float64(c.Confirmed), c.User)
		send(cloudWaiting, prometheus.GaugeValue, float64(c.Waiting), c.User)
		send(cloudPace, prometheus.GaugeValue, float64(c.PaceMS)/1000, c.User)
	}
	send(reports, prometheus.CounterValue, float64(snap.Counts.Reports))
	send(confirmed, prometheus.CounterValue, float64(snap.Counts.Confirmed))
	send(tooFast, prometheus.CounterValue, float64(snap.Counts.TooFast))
	send(downlinks, prometheus.CounterValue, float64(snap.Counts.Downlinks))
	s.collectBuffer(send, snap)
}

type sendMetric func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string)

func collectBus(send sendMetric, b *gateway.BusSnapshot) {
	name := b.Bus.Name
	send(busUp, prometheus.GaugeValue, truth(b.State == gateway.BusUp), name, b.Bus.Type)
	send(busRequests, prometheus.CounterValue, float64(b.Requests), name)
	send(busValues, prometheus.CounterValue, float64(b.Samples), name)
	send(busBusy, prometheus.CounterValue, b.Busy.Seconds(), name)
	send(busOverruns, prometheus.CounterValue, float64(b.Overruns), name)
	for i := range b.Devices {
		d := &b.Devices[i]
		send(deviceUp, prometheus.GaugeValue, truth(d.Online), d.Device.Name, name)
		send(devicePoints, prometheus.GaugeValue, float64(len(d.Points)), d.Device.Name, name)
		send(deviceBad, prometheus.GaugeValue, float64(d.Bad), d.Device.Name, name)
	}
}

func (s *Server) collectBuffer(send sendMetric, snap *gateway.Snapshot) {
	b := &snap.Buffer
	send(bufferWaiting, prometheus.GaugeValue, float64(b.Waiting))
	send(bufferPending, prometheus.GaugeValue, float64(b.Pending))
	send(bufferSize, prometheus.GaugeValue, float64(b.FileSize))
	send(bufferLimit, prometheus.GaugeValue, float64(s.Site.Buffer.MaxSize))
	send(bufferAppended, prometheus.CounterValue, float64(b.Appended))
	send(bufferAcked, prometheus.CounterValue, float64(b.Acked))
	for cause, n := range map[string]uint64{
		"age": b.Dropped.Age, "full": b.Dropped.Full, "disk": b.Dropped.Disk, "memory": b.Dropped.Memory, "corrupt": b.Dropped.Corrupt, "refused": b.Dropped.Refused,
	} {
		send(bufferDropped, prometheus.CounterValue, float64(n), cause)
	}
	send(bufferQuarantined, prometheus.CounterValue, float64(b.Quarantined))
	send(bufferEvicted, prometheus.CounterValue, float64(b.Evicted))
	send(bufferCommits, prometheus.CounterValue, float64(b.Commits))
	send(bufferFailures, prometheus.CounterValue, float64(b.Failures))
	send(bufferFailing, prometheus.GaugeValue, truth(!b.FailingSince.IsZero()))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
