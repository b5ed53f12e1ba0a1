// Package journal has the lines of a log in systemd's journal with their attributes as fields, so that
// `journalctl VM=dev` finds those of a VM. What is sent is what https://systemd.io/JOURNAL_NATIVE_PROTOCOL/ says.
//
// coreos/go-systemd knows whether standard error is the journal's. Its Send, and the handlers that there are for
// slog, wait in a way that may not end while the journal takes nothing, and have no attributes in the message, where
// who reads the log looks for them.
//
// Which lines there are, and what waits while the journal is busy, is not decided here.
package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

const (
	// maxValue bounds a field in bytes, so that an entry fits in a datagram. What is beyond it is cut off.
	maxValue = 8 << 10
	// maxName is the longest name of a field that the journal takes, in bytes.
	maxName = 64
)

// handler makes an entry of the journal of each line. MESSAGE is the line as it is on a terminal, without time and
// level, which the journal has itself; the fields are its attributes.
type handler struct {
	w     io.Writer
	text  slog.Handler // writes to line
	mu    *sync.Mutex  // of line
	line  *bytes.Buffer
	named []byte // fields of the attributes that all lines have
	group string // comes before the names of those to come
}

// NewHandler returns a handler that writes each line of at least the given level to w as an entry, in one call.
func NewHandler(w io.Writer, level slog.Leveler) slog.Handler {
	line := &bytes.Buffer{}
	text := slog.NewTextHandler(line, &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
			return slog.Attr{}
		}
		return a
	}})
	return &handler{w: w, text: text, mu: &sync.Mutex{}, line: line}
}

func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.text.Enabled(ctx, level)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.text = h.text.WithAttrs(attrs)
	c.named = bytes.Clone(h.named)
	for _, a := range attrs {
		c.named = appendAttr(c.named, h.group, a)
	}
	return &c
}

func (h *handler) WithGroup(name string) slog.Handler {
	c := *h
	c.text = h.text.WithGroup(name)
	c.group = h.group + name + "_"
	return &c
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	entry := appendField(nil, "PRIORITY", priority(r.Level))
	entry = appendField(entry, "SYSLOG_IDENTIFIER", filepath.Base(os.Args[0]))
	h.mu.Lock()
	h.line.Reset()
	err := h.text.Handle(ctx, r)
	message := strings.TrimRight(r.Message+" "+h.line.String(), " \n")
	h.mu.Unlock()
	if err != nil {
		return err
	}
	entry = appendField(entry, "MESSAGE", message)
	entry = append(entry, h.named...)
	r.Attrs(func(a slog.Attr) bool {
		entry = appendAttr(entry, h.group, a)
		return true
	})
	_, err = h.w.Write(entry)
	return err
}

// priority is a level as syslog(3) numbers it.
func priority(level slog.Level) string {
	switch {
	case level < slog.LevelInfo:
		return "7"
	case level < slog.LevelWarn:
		return "6"
	case level < slog.LevelError:
		return "4"
	default:
		return "3"
	}
}

func appendAttr(entry []byte, group string, a slog.Attr) []byte {
	value := a.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "_"
		}
		for _, a := range value.Group() {
			entry = appendAttr(entry, group, a)
		}
		return entry
	}
	if name := fieldName(group + a.Key); name != "" {
		entry = appendField(entry, name, value.String())
	}
	return entry
}

// fieldName is a key as a name of a field: capital letters, digits and underscores, with a letter first. "" where
// nothing is left of it.
func fieldName(key string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		default:
			return '_'
		}
	}, key)
	name = strings.TrimLeft(name, "_0123456789")
	return name[:min(len(name), maxName)]
}

// appendField appends a field with its length, so that no value can end it and begin another.
func appendField(entry []byte, name, value string) []byte {
	value = strings.ToValidUTF8(value[:min(len(value), maxValue)], "\uFFFD")
	entry = append(entry, name...)
	entry = append(entry, '\n')
	entry = binary.LittleEndian.AppendUint64(entry, uint64(len(value)))
	entry = append(entry, value...)
	return append(entry, '\n')
}
