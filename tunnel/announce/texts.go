package announce

import "github.com/rum-vm/rum-agent/portwatch/portlist"

// maxTexts bounds what is said of processes in a set, in bytes: their names, command lines and directories. For a
// thousand of them, each with a command line, it is enough.
const maxTexts = 128 << 10

// boundTexts leaves out what is said of processes where that is too much together: the longest, so that whoever
// gives itself long names crowds nobody out. What is next to each other and the same is held once.
func boundTexts(set []portlist.Listener) {
	for longest := maxTexts; ; longest /= 2 {
		sum := 0
		for i := range set {
			l := &set[i]
			if l.Program.Len()+len(l.Process) > longest {
				l.Program = portlist.Program{}
			}
			if len(l.Process) > longest {
				l.Process = ""
			}
			switch {
			case i == 0 || l.Process != set[i-1].Process:
				sum += len(l.Process) + l.Program.Len()
			default:
				l.Process = set[i-1].Process
				if l.Program != set[i-1].Program {
					sum += l.Program.Len()
				}
			}
		}
		if sum <= maxTexts {
			return
		}
	}
}
