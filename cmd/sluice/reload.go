package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/buffer"
	"sluice/gateway"
	"sluice/gateway/cloud"
	"sluice/gateway/site"
)

// daemon is a running gateway and what belongs to it: the connections to the
// cloud, the page and the control socket. A reload exchanges what differs.
type daemon struct {
	log     *slog.Logger
	store   *buffer.Buffer
	gateway *gateway.Gateway
	service *service
	wait    sync.WaitGroup

	local func() // stops the page and the control socket

	mu       sync.Mutex
	sessions map[string]*connection // by username; a reload makes another map
}

// connection is the session of one username.
type connection struct {
	*cloud.Session
	config cloud.Config
	stop   func()
}

// start runs something until ctx ends, or stop is called, which waits for it.
func (d *daemon) start(ctx context.Context, run func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	d.wait.Go(func() {
		defer close(done)
		defer cancel()
		run(ctx)
	})
	return func() {
		cancel()
		<-done
	}
}

// connect makes the sessions of a site; those that need nothing new are the ones
// that there are.
func (d *daemon) connect(s *gateway.Site) (map[string]*connection, error) {
	all := make(map[string]*connection)
	downlinks := s.Downlinks()
	for user, login := range s.Logins() {
		config := cloud.Config{Cloud: s.Cloud, Login: login, Site: s.Name, Streams: downlinks[user], Ask: s.Writable(user)}
		if c := d.sessions[user]; c != nil && reflect.DeepEqual(c.config, config) {
			all[user] = c
			continue
		}
		c := &connection{config: config}
		config.Log = d.log.With("user", user)
		memory, err := d.store.Get(memoryBucket, user)
		if err != nil || memory == nil && d.forgot() {
			memory = []byte{} // there was some
		}
		config.Memory = memory
		config.Keep = func(memory []byte) { d.keep(map[string][]byte{user: memory}) }
		session, err := cloud.New(config)
		if err != nil {
			return nil, fmt.Errorf("cloud session of %s: %w", user, err)
		}
		c.Session = session
		all[user] = c
	}
	return all, nil
}

func uplinks(connections map[string]*connection) map[string]gateway.Uplink {
	all := make(map[string]gateway.Uplink)
	for user, c := range connections {
		all[user] = c.Session
	}
	return all
}

// exchange stops the sessions that are not in next and starts those that are
// new. It tells which users those were.
func (d *daemon) exchange(ctx context.Context, next map[string]*connection) (changed []string) {
	d.mu.Lock()
	before := d.sessions
	d.sessions = next
	d.mu.Unlock()
	var ending sync.WaitGroup
	for user, c := range before {
		if next[user] != c {
			changed = append(changed, user)
			ending.Go(c.stop)
		}
	}
	ending.Wait()
	memories := make(map[string][]byte)
	var fresh []*connection
	for _, user := range changed {
		memories[user] = before[user].Memory(false)
	}
	for user, c := range next {
		if before[user] != c {
			changed = append(changed, user)
			if old := before[user]; old != nil {
				c.Follow(old.Session)
			}
			memories[user] = c.Memory(true)
			fresh = append(fresh, c)
		}
	}
	d.keep(memories)
	for _, c := range fresh {
		c.stop = d.start(ctx, c.Run)
	}
	slices.Sort(changed)
	return slices.Compact(changed)
}

// memoryBucket holds by username what the next process has to know of a session.
const memoryBucket = "answers"

// forgot tells whether a process before may have sent what the buffer's file knows
// nothing of: one of an older version, or one whose file was damaged.
func (d *daemon) forgot() bool {
	if d.store.New() {
		return false
	}
	some := false
	err := d.store.Scan(memoryBucket, "", func(string, []byte) bool { some = true; return false })
	return err != nil || !some || d.store.SetAside().Err != nil
}

// keep stores it. While the disk fails it is lost, as the log says of all that is
// written: an answer that comes after a crash may then be taken for another's.
func (d *daemon) keep(memories map[string][]byte) {
	if len(memories) > 0 {
		_ = d.store.PutAll(memoryBucket, memories)
	}
}

// newLocal makes the page and the control socket of a site.
func (d *daemon) newLocal(s *gateway.Site, connections map[string]*connection) (run func(context.Context), err error) {
	sessions := make(map[string]*cloud.Session)
	for user, c := range connections {
		sessions[user] = c.Session
	}
	server, err := newLocal(s, d.gateway, d.store, sessions, d.service.hangs, d.log)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { runLocal(ctx, s, server, d.log) }, nil
}

// watched lists every loop that has to turn.
func (d *daemon) watched() []gateway.Watched {
	all := append(d.gateway.Watched(), gateway.Watched{Name: "buffer", Turned: d.store.Turned})
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.sessions {
		all = append(all, c.Watched())
	}
	return all
}

// errRefused says that the log has told why a site file is not taken.
var errRefused = errors.New("the site file is refused")

// reload reads the site file again and goes over to what it says now. A file
// that is wrong changes nothing, and the log says why.
func (d *daemon) reload(ctx context.Context, path string) {
	d.service.reloading()
	defer d.service.ready()
	begin := time.Now()
	if err := d.exchangeSite(ctx, path); err != nil && ctx.Err() == nil {
		d.log.Error("site file not taken, the gateway runs on as before", "file", path, "error", err)
		return
	}
	d.log.Debug("reload is done", "after", time.Since(begin).Round(time.Millisecond))
}

func (d *daemon) exchangeSite(ctx context.Context, path string) error {
	now := d.gateway.Site()
	next, found := site.Load(path, siteOptions())
	if found.Errors() == 0 {
		found = append(found, site.OpenSecrets(next)...)
	}
	for _, f := range found {
		level := slog.LevelWarn
		if f.Severity == gateway.Error {
			level = slog.LevelError
		}
		d.log.Log(ctx, level, "in the site file", "at", fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column), "what", f.Text, "do", f.Suggestion)
	}
	if found.Errors() > 0 {
		return errRefused
	}
	d.keepFixed(now, next)
	sessions, err := d.connect(next)
	if err != nil {
		return err
	}
	serveLocal, err := d.newLocal(next, sessions)
	if err != nil {
		return err
	}
	change, err := d.gateway.Reload(ctx, next, uplinks(sessions))
	if err != nil {
		return err
	}
	users := d.exchange(ctx, sessions)
	d.local()
	d.local = d.start(ctx, serveLocal)
	d.service.allow(next)
	d.leftBehind(now, next)
	d.log.Info("site file taken", "buses_started", strings.Join(change.Started, " "), "buses_stopped", strings.Join(change.Stopped, " "),
		"buses_kept", change.Kept, "users_changed", strings.Join(users, " "))
	return nil
}

// keepFixed keeps the settings that only a start can change.
func (d *daemon) keepFixed(now, next *gateway.Site) {
	if !reflect.DeepEqual(now.Buffer, next.Buffer) {
		d.log.Warn("a change in the site file takes a restart", "setting", "buffer")
		next.Buffer = now.Buffer
	}
	if !maps.Equal(now.Log, next.Log) {
		d.log.Warn("a change in the site file takes a restart", "setting", "log")
		next.Log = now.Log
	}
}

// leftBehind says for which users records wait who are not in the site file: of
// all of them, or of those that another site had.
func (d *daemon) leftBehind(before, now *gateway.Site) {
	waiting := map[string]int{}
	for _, lane := range d.store.Lanes() {
		waiting[userOf(lane)] += d.store.Len(lane)
	}
	for _, user := range slices.Sorted(maps.Keys(waiting)) {
		_, there := now.Logins()[user]
		was := before == nil
		if !was {
			_, was = before.Logins()[user]
		}
		if was && !there {
			d.log.Warn("records wait for a user who is not in the site file any more", "user", user, "records", waiting[user])
		}
	}
}
