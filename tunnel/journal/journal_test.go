package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"unicode/utf8"
)

// entries reads what is written to it as the journal does.
type entries struct{ all []map[string]string }

func (e *entries) Write(b []byte) (int, error) {
	entry := make(map[string]string)
	for rest := b; len(rest) > 0; {
		name, value, ok := bytes.Cut(rest, []byte("\n"))
		if !ok || len(value) < 8 {
			return 0, errors.New("a field without a length")
		}
		n := binary.LittleEndian.Uint64(value)
		if n > uint64(len(value)-9) || value[8+n] != '\n' {
			return 0, errors.New("a field with a wrong length")
		}
		if _, twice := entry[string(name)]; twice {
			return 0, errors.New(string(name) + " comes twice")
		}
		entry[string(name)] = string(value[8 : 8+n])
		rest = value[9+n:]
	}
	e.all = append(e.all, entry)
	return len(b), nil
}

func TestAttributesAreFields(t *testing.T) {
	var journal entries
	log := slog.New(NewHandler(&journal, slog.LevelDebug)).With("vm", "dev")
	log.Info("port open", "port", 8080, "looked_for", "a b")
	log.Warn("careful", slog.Group("peer", "ver-sion", 2), "9_lives", true, "__", 1)
	log.WithGroup("of").With("a", 1).Error("bad", "error", errors.New("no"))
	log.Debug("detail")
	common := map[string]string{"SYSLOG_IDENTIFIER": "journal.test", "VM": "dev"}
	for i, want := range []map[string]string{
		{"PRIORITY": "6", "MESSAGE": `port open vm=dev port=8080 looked_for="a b"`, "PORT": "8080", "LOOKED_FOR": "a b"},
		{"PRIORITY": "4", "MESSAGE": "careful vm=dev peer.ver-sion=2 9_lives=true __=1", "PEER_VER_SION": "2", "LIVES": "true"},
		{"PRIORITY": "3", "MESSAGE": "bad vm=dev of.a=1 of.error=no", "OF_A": "1", "OF_ERROR": "no"},
		{"PRIORITY": "7", "MESSAGE": "detail vm=dev"},
	} {
		maps.Copy(want, common)
		if i >= len(journal.all) || !maps.Equal(journal.all[i], want) {
			t.Errorf("entry %d of %d is not %v", i, len(journal.all), want)
		}
	}
	if t.Failed() {
		t.Logf("%q", journal.all)
	}
}

func TestNoValueIsTakenForAField(t *testing.T) {
	var journal entries
	log := slog.New(NewHandler(&journal, slog.LevelInfo))
	evil := "x\nVM=other\nPRIORITY\n\x01\x00\x00\x00\x00\x00\x00\x000\n\xff"
	log.Warn("lost the guest agent", "vm", "dev", "error", evil)
	got := journal.all[0]
	if got["VM"] != "dev" || got["PRIORITY"] != "4" || len(got) != 5 {
		t.Errorf("the entry is %q", got)
	}
	if strings.ContainsAny(got["MESSAGE"], "\n\x00") || !utf8.ValidString(got["MESSAGE"]) {
		t.Errorf("the message is more than a line of text: %q", got["MESSAGE"])
	}
}

func TestAnEntryFitsInADatagram(t *testing.T) {
	var journal entries
	slog.New(NewHandler(&journal, slog.LevelInfo)).Warn("long", "error", strings.Repeat("é", 100_000))
	for name, value := range journal.all[0] {
		if len(value) > maxValue+3 {
			t.Errorf("%s has %d bytes", name, len(value))
		}
	}
}
