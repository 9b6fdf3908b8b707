package gateway

import (
	"context"
	"time"
)

// feed is the bus loop's side of a Subscriber.
type feed struct {
	deliveries chan []Sample // nil while nothing is watched
	events     chan []FieldEvent
	lost       <-chan struct{}
	why        func() error
	stop       chan struct{} // closed when the session ends: nothing more is taken
}

// watched tells whether a point is told by its device where that can: not
// where the profile says mode: poll.
func watched(p *Point) bool {
	return p.Access != "w" && p.Device.Profile != nil && p.Device.Profile.Mode == "subscribe"
}

// subscribe has a session watch the points that are not polled. Its stations
// are those of the rest.
func (b *busLoop) subscribe(ctx context.Context) error {
	b.feed = feed{}
	subscriber, ok := b.session.(Subscriber)
	if ok != b.watching {
		b.watching = ok
		b.arrange()
	}
	if !ok {
		return nil
	}
	var points []*Point
	for _, d := range b.reporter.devices {
		d.fresh = time.Time{}
		for _, st := range d.points {
			if st.watched = watched(st.latest.Point); st.watched && !st.computed {
				points = append(points, st.latest.Point)
			}
		}
	}
	w := feed{deliveries: make(chan []Sample), events: make(chan []FieldEvent), lost: subscriber.Lost(), why: subscriber.Err, stop: make(chan struct{})}
	b.feed = w
	if source, ok := b.session.(EventSource); ok {
		source.TellEvents(b.devices(), func(events []FieldEvent) { handOver(w.events, events, w.stop) })
	}
	return subscriber.Subscribe(ctx, points, func(samples []Sample) { handOver(w.deliveries, samples, w.stop) })
}

// handOver gives what a device told to the bus, unless that has stopped.
func handOver[T any](to chan<- T, told T, stop <-chan struct{}) {
	select {
	case to <- told:
	case <-stop:
	}
}

func (b *busLoop) devices() []*Device {
	devices := make([]*Device, len(b.reporter.devices))
	for i, d := range b.reporter.devices {
		devices[i] = d.device
	}
	return devices
}

// unsubscribe takes what a session has to deliver, and lets go of it.
func (b *busLoop) unsubscribe() {
	for b.feed.stop != nil {
		select {
		case samples := <-b.feed.deliveries:
			b.take(samples)
		case events := <-b.feed.events:
			b.occur(events)
		default:
			close(b.feed.stop)
			b.feed = feed{}
		}
	}
}

// arrange divides what is polled into stations.
func (b *busLoop) arrange() {
	b.stations = nil
	for _, s := range newStations(b.bus, b.reporter.devices, func(p *Point) bool { return b.watching && watched(p) }) {
		if len(s.polls) > 0 {
			b.stations = append(b.stations, s)
		}
	}
}

// take notes what the devices said by themselves. Several values of a point are
// looked at one after the other.
func (b *busLoop) take(samples []Sample) {
	b.watchers.told("told", samples, time.Time{}, nil)
	b.heard(samples)
	told := make(map[*deviceState]bool)
	for i := range samples {
		s := &samples[i]
		st := b.reporter.states[s.Point]
		if st.pass == st.device.pass {
			b.settle(st.device)
		}
		st.pass = st.device.pass
		st.note(s)
		told[st.device] = true
	}
	b.stats.Samples.Add(int64(len(samples)))
	b.load.Samples += int64(len(samples))
	for d := range told {
		b.settle(d)
		d.say(b.log)
	}
}

// settle works out and reports what follows from what a device said.
func (b *busLoop) settle(d *deviceState) {
	d.judge(time.Now())
	b.reporter.flush(d)
	d.pass++
}

// occur reports events that devices told by themselves: with the points that
// the profile wants, as they are now, and with what the device says of it.
func (b *busLoop) occur(events []FieldEvent) {
	now := time.Now()
	for i := range events {
		told := &events[i]
		for _, d := range b.reporter.devices {
			if d.device == told.Device {
				d.rules.occur(told, now)
			}
		}
	}
}
