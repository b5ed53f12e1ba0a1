package wire

import (
	"cmp"
	"errors"
	"path"
	"slices"

	"github.com/rum-vm/rum-agent/portwatch/portlist"
	"golang.org/x/crypto/cryptobyte"
)

// fieldProgram is the kind of a field that says more about a process of the listeners in
// a message: its name and number as they have it, command line, working directory and
// home of its user. An older host skips it, an older guest has none.
const fieldProgram = 2

// maxPrograms bounds these fields of a message in bytes, so that they fit beside the
// listeners. The shortest come first: whoever has long ones does not crowd others out.
const maxPrograms = 192 << 10

func addPrograms(b *cryptobyte.Builder, ls []portlist.Listener) {
	var fields [][]byte
	told := make(map[string]bool)
	for _, l := range ls {
		if l.Process == "" || l.Program == (portlist.Program{}) || told[l.Process] {
			continue
		}
		told[l.Process] = true
		field := cryptobyte.NewBuilder(nil)
		addString(field, l.Process, maxProcess)
		addString(field, l.Program.Command(), portlist.MaxCommand)
		addString(field, l.Program.Dir(), portlist.MaxDirectory)
		addString(field, l.Program.Home(), portlist.MaxDirectory)
		fields = append(fields, field.BytesOrPanic())
	}
	slices.SortStableFunc(fields, func(a, b []byte) int { return cmp.Compare(len(a), len(b)) })
	room := maxPrograms
	for _, f := range fields {
		if room -= len(f); room < 0 {
			return
		}
		addField(b, fieldProgram, f)
	}
}

// programsOf returns what reads the fields about the processes of listeners, and
// reports whether a field is one. The first that is said of a process counts, so each
// listener is looked at once, however many fields a guest sends.
func programsOf(ls []portlist.Listener) func(kind uint8, body []byte) bool {
	var byProcess map[string][]int
	room := maxPrograms
	return func(kind uint8, body []byte) bool {
		if kind != fieldProgram {
			return false
		}
		if byProcess == nil {
			byProcess = make(map[string][]int)
			for i, l := range ls {
				byProcess[l.Process] = append(byProcess[l.Process], i)
			}
		}
		room -= len(body)
		process, program, err := readProgram(body)
		if err != nil || room < 0 {
			return true // as if nothing were known of it
		}
		for _, i := range byProcess[process] {
			ls[i].Program = program
		}
		delete(byProcess, process)
		return true
	}
}

func readProgram(s cryptobyte.String) (process string, p portlist.Program, err error) {
	var command, dir, home string
	err = errors.Join(
		readString(&s, &process, maxProcess),
		readString(&s, &command, portlist.MaxCommand),
		readString(&s, &dir, portlist.MaxDirectory),
		readString(&s, &home, portlist.MaxDirectory))
	if err == nil && process == "" {
		err = errors.New("a program of no process")
	}
	return process, portlist.NewProgram(command, directory(dir), directory(home)), err
}

// directory is a path as the kernel writes it, or "".
func directory(s string) string {
	if !path.IsAbs(s) || path.Clean(s) != s {
		return ""
	}
	return s
}
