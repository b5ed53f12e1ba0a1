package portlist

import "unique"

// Limits of a Program in bytes. A longer command line is cut. A directory is told whole
// or not at all, because a part of it is another one.
const (
	MaxCommand   = 512
	MaxDirectory = 512
)

// Program is what rules may ask about a process besides its name. The zero value is one of which
// nothing is known. Programs of which the same is known are equal, and take no memory of their own: one
// may have thousands of listeners.
//
// It is for matching and nothing else: command lines may hold passwords, so it is written into no JSON, and
// printed as its type only.
type Program struct{ known unique.Handle[known] }

type known struct{ command, dir, home string }

// NewProgram is that of a command line, with blanks between its arguments, of the working directory and of the
// home of the user whose process it is; each is empty where it is not known.
func NewProgram(command, dir, home string) Program {
	if command == "" && dir == "" && home == "" {
		return Program{}
	}
	return Program{unique.Make(known{command, dir, home})}
}

func (p Program) value() known {
	if p == (Program{}) {
		return known{}
	}
	return p.known.Value()
}

// Command is the command line.
func (p Program) Command() string { return p.value().command }

// Dir is the working directory.
func (p Program) Dir() string { return p.value().dir }

// Home is that of the user whose process it is.
func (p Program) Home() string { return p.value().home }

// Len is how long what is known is together.
func (p Program) Len() int {
	k := p.value()
	return len(k.command) + len(k.dir) + len(k.home)
}

// String hides what is in it.
func (Program) String() string { return "portlist.Program" }

// GoString hides what is in it.
func (p Program) GoString() string { return p.String() }
