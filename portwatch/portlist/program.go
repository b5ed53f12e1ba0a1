package portlist

// Limits of a Program in bytes. A longer command line is cut. A directory is told whole
// or not at all, because a part of it is another one.
const (
	MaxCommand   = 512
	MaxDirectory = 512
)

// Program is what rules may ask about a process besides its name; a field that is not
// known is empty. It is for matching and nothing else: command lines may hold
// passwords, so it is written into no JSON, and printed as its type only.
type Program struct {
	// Command is the command line with blanks between its arguments.
	Command string
	// Dir is the working directory, and Home that of the user whose process it is.
	Dir, Home string
}

// String hides what is in it.
func (Program) String() string { return "portlist.Program" }

// GoString hides what is in it.
func (p Program) GoString() string { return p.String() }
