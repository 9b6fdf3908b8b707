package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
)

// newLog makes the program's log: text lines, without a time where the journal
// adds its own. levels are the site's: "level" for all, "bus.<name>" and
// "device.<name>" for one.
func newLog(w io.Writer, levels map[string]string) (*slog.Logger, error) {
	options := &slog.HandlerOptions{Level: slog.LevelDebug}
	if os.Getenv("JOURNAL_STREAM") != "" {
		options.ReplaceAttr = withoutTime
		w = journal{w}
	}
	h := levelHandler{Handler: slog.NewTextHandler(w, options), levels: make(map[string]slog.Level)}
	for of, text := range levels {
		var level slog.Level
		if err := level.UnmarshalText([]byte(text)); err != nil {
			return nil, fmt.Errorf("log level of %s: %w", of, err)
		}
		h.levels[of] = level
	}
	h.level = h.levels["level"]
	return slog.New(h), nil
}

// journal puts the level before each line as the journal reads it, so that
// "journalctl -p warning" finds what it should.
type journal struct{ io.Writer }

var journalLevels = []struct{ begin, mark string }{
	{"level=DEBUG", "<7>"}, {"level=INFO", "<6>"}, {"level=WARN", "<4>"}, {"level=ERROR", "<3>"},
}

func (j journal) Write(line []byte) (int, error) {
	mark := ""
	for _, l := range journalLevels {
		if bytes.HasPrefix(line, []byte(l.begin)) {
			mark = l.mark
		}
	}
	if _, err := j.Writer.Write(append([]byte(mark), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}

func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// levelHandler lets through what its level allows; a logger made with a bus or
// device that has a level of its own gets that one.
type levelHandler struct {
	slog.Handler
	level  slog.Level
	levels map[string]slog.Level
}

func (h levelHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h levelHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.Handler = h.Handler.WithAttrs(attrs)
	for _, a := range attrs {
		if level, ok := h.levels[a.Key+"."+a.Value.String()]; ok {
			h.level = level
		}
	}
	return h
}

func (h levelHandler) WithGroup(name string) slog.Handler {
	h.Handler = h.Handler.WithGroup(name)
	return h
}
