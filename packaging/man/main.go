// Man makes manual pages, one for each command, or docs/reference.md out of what the agents print with --help:
//
//	man DIRECTORY AGENT...
//	man --reference AGENT...
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: man DIRECTORY AGENT...\n       man --reference AGENT...")
		os.Exit(2)
	}
	write := func(name, short string, h help) error {
		return os.WriteFile(filepath.Join(os.Args[1], name+".1"), h.page(name, short), 0o644)
	}
	if os.Args[1] == "--reference" {
		fmt.Print("# Every command and option\n\nMade by `make docs` out of what `--help` says; `make docs-check` fails where it says something else.\n")
		write = func(name, _ string, h help) error { return h.reference(os.Stdout, name) }
	}
	for _, agent := range os.Args[2:] {
		if err := commands(agent, nil, "", write); err != nil {
			fmt.Fprintln(os.Stderr, "man:", err)
			os.Exit(1)
		}
	}
}

// commands writes a command, and then its subcommands. short is what a list of commands says of it; of the agent itself, for which
// there is none, that is the first sentence of its help.
func commands(agent string, command []string, short string, write func(name, short string, h help) error) error {
	run := exec.Command(agent, append(command, "--help")...)
	// Whose defaults are shown is nobody's in particular.
	run.Env = []string{"HOME=/home/USER", "XDG_RUNTIME_DIR=/run/user/UID"}
	out, err := run.Output()
	if err != nil {
		return fmt.Errorf("%s %s --help: %w", agent, strings.Join(command, " "), err)
	}
	h := parse(strings.ReplaceAll(string(out), "(default ["+runtime.GOARCH+"])", "(default this machine's)"))
	if short == "" {
		short, _, _ = strings.Cut(h.about, "\n\n")
		short, _, _ = strings.Cut(strings.ReplaceAll(short, "\n", " "), ". ")
		short = strings.TrimPrefix(short, filepath.Base(agent)+" ")
	}
	if err := write(strings.Join(append([]string{filepath.Base(agent)}, command...), "-"), short, h); err != nil {
		return err
	}
	for _, sub := range h.commands {
		if err := commands(agent, append(command[:len(command):len(command)], sub.name), sub.text, write); err != nil {
			return err
		}
	}
	return nil
}

// reference is a section of docs/reference.md.
func (h help) reference(w io.Writer, name string) error {
	var b bytes.Buffer
	about, _, _ := strings.Cut(h.about, "\n\n")
	fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", name, strings.ReplaceAll(about, "\n", " "))
	for _, u := range h.usage {
		fmt.Fprintf(&b, "- `%s`\n", u)
	}
	if len(h.flags) > 0 {
		b.WriteString("\n| option | |\n|---|---|\n")
	}
	for _, f := range h.flags {
		if strings.HasSuffix(f.name, "--help") {
			continue
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", f.name, strings.ReplaceAll(f.text, "|", "\\|"))
	}
	_, err := w.Write(b.Bytes())
	return err
}

// help is what --help prints.
type help struct {
	about    string // the paragraphs above
	usage    []string
	examples []string
	commands []item
	flags    []item
}

// item is a command or a flag with what it is.
type item struct{ name, text string }

var (
	heading = regexp.MustCompile(`^(Usage|Aliases|Examples|Available Commands|Additional Commands|Flags|Global Flags):$`)
	aFlag   = regexp.MustCompile(`^ {2,6}(-\w, )?(--[\w-]+)( \S+)?(?: {2,}|$)(.*)$`)
	command = regexp.MustCompile(`^  (\S+) +(.*)$`)
)

func parse(text string) (h help) {
	section := ""
	var about []string
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		if found := heading.FindStringSubmatch(line); found != nil {
			section = found[1]
			continue
		}
		switch section {
		case "":
			about = append(about, line)
		case "Usage":
			if line != "" {
				h.usage = append(h.usage, strings.TrimSpace(line))
			}
		case "Examples":
			h.examples = append(h.examples, strings.TrimPrefix(line, "  "))
		case "Available Commands", "Additional Commands":
			if found := command.FindStringSubmatch(line); found != nil {
				h.commands = append(h.commands, item{found[1], found[2]})
			}
		case "Flags", "Global Flags":
			if found := aFlag.FindStringSubmatch(line); found != nil {
				h.flags = append(h.flags, item{found[1] + found[2] + found[3], found[4]})
			} else if n := len(h.flags); n > 0 && strings.HasPrefix(line, "   ") {
				h.flags[n-1].text += " " + strings.TrimSpace(line)
			}
		}
	}
	h.about = strings.TrimSpace(strings.Join(about, "\n"))
	return h
}

// page is a manual page in the macros of man(7). Its line of names has all of short, by which apropos finds it.
func (h help) page(name, short string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, ".TH %s 1 \"\" \"rum agents\" \"User Commands\"\n", strings.ToUpper(escape(name)))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", escape(name), escape(strings.TrimSuffix(short, ".")))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n")
	for i, u := range h.usage {
		if i > 0 {
			b.WriteString(".br\n")
		}
		fmt.Fprintf(&b, "%s\n", escape(u))
	}
	b.WriteString(".SH DESCRIPTION\n")
	for i, paragraph := range strings.Split(h.about, "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		fmt.Fprintf(&b, "%s\n", escape(paragraph))
	}
	list := func(title string, items []item) {
		if len(items) == 0 {
			return
		}
		fmt.Fprintf(&b, ".SH %s\n", title)
		for _, i := range items {
			fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", escape(i.name), escape(i.text))
		}
	}
	list("COMMANDS", h.commands)
	list("OPTIONS", h.flags)
	if examples := strings.TrimSpace(strings.Join(h.examples, "\n")); examples != "" {
		fmt.Fprintf(&b, ".SH EXAMPLES\n.nf\n%s\n.fi\n", escape(examples))
	}
	agent := strings.Join(strings.SplitN(name, "-", 4)[:3], "-")
	var see []string
	if name != agent {
		see = append(see, agent)
	}
	for _, c := range h.commands {
		see = append(see, name+"-"+c.name)
	}
	if len(see) > 0 {
		b.WriteString(".SH SEE ALSO\n")
		for i, s := range see {
			end := ","
			if i == len(see)-1 {
				end = ""
			}
			fmt.Fprintf(&b, ".BR %s (1)%s\n", escape(s), end)
		}
	}
	return b.Bytes()
}

// escape keeps text from being taken for requests: a line that begins with a dot or a quote, and backslashes.
func escape(text string) string {
	text = strings.ReplaceAll(text, `\`, `\e`)
	text = strings.ReplaceAll(text, "-", `\-`)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
