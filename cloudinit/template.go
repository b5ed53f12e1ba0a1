package cloudinit

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// templateTags are Jinja2's own and that of its extension do, which are what cloud-init
// has (jinja_render in its templater.py). What ends each is its name after "end"; those
// in templateAlone have no end.
var (
	templateTags = map[string]bool{
		"for": true, "if": true, "block": true, "call": true, "filter": true, "macro": true, "with": true, "autoescape": true, "set": true,
	}
	templateAlone = map[string]bool{
		"extends": true, "print": true, "include": true, "from": true, "import": true, "do": true,
	}
	templateRaw    = regexp.MustCompile(`^\{%[-+]?\s*raw\s*-?%\}`)
	templateEndRaw = regexp.MustCompile(`\{%[-+]?\s*endraw\s*[-+]?%\}`)
	templateString = regexp.MustCompile(`^(?s:'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*")`)
	templateWord   = regexp.MustCompile(`^[\pL\pN_]+`)
)

// openTag is a tag that waits for its end.
type openTag struct {
	name  string
	line  int
	elsed bool
}

// checkTemplate reports what Jinja2 fails on whatever the variables are: delimiters,
// brackets and tags that do not fit together. Expressions it does not understand.
func checkTemplate(text string, first int) error {
	text = strings.TrimSuffix(text, "\n") // as Jinja2 does
	var open []openTag
	line := func(at int) int { return first + strings.Count(text[:at], "\n") }
	for at := 0; ; {
		i := strings.IndexByte(text[at:], '{')
		if i < 0 || at+i+1 >= len(text) {
			break
		}
		at += i
		begin := at
		switch text[at+1] {
		case '#':
			end := strings.Index(text[at+2:], "#}")
			if at+2 == len(text) {
				return unended(open) // which Jinja2 takes
			}
			if end < 0 {
				return atLine(line(begin), "the comment {# has no end #}")
			}
			at += 2 + end + 2
		case '{', '%':
			if raw := templateRaw.FindString(text[at:]); raw != "" {
				end := templateEndRaw.FindStringIndex(text[at+len(raw):])
				if strings.TrimSpace(text[at+len(raw):]) == "" {
					return unended(open) // which Jinja2 takes
				}
				if end == nil {
					return atLine(line(begin), "{%% raw %%} has no {%% endraw %%}")
				}
				at += len(raw) + end[1]
				continue
			}
			tokens, n, problem := templateTokens(text[at:])
			if problem != "" {
				return atLine(line(begin), "%s", problem)
			}
			at += n
			if text[begin+1] == '{' {
				if len(tokens) == 0 {
					return atLine(line(begin), "there is nothing between {{ and }}")
				}
				continue
			}
			var err error
			if open, err = takeTag(open, tokens, line(begin)); err != nil {
				return err
			}
		default:
			at++
		}
	}
	return unended(open)
}

// unended is the error for a tag that has no end.
func unended(open []openTag) error {
	if len(open) == 0 {
		return nil
	}
	last := open[len(open)-1]
	return atLine(last.line, "{%% %s %%} has no {%% end%[1]s %%}", last.name)
}

// takeTag does what a tag does to those that wait for their end.
func takeTag(open []openTag, tokens []string, line int) ([]openTag, error) {
	if len(tokens) == 0 || !templateWord.MatchString(tokens[0]) {
		return nil, atLine(line, "a {%% has no name of a tag behind it")
	}
	name, rest := tokens[0], tokens[1:]
	var inner *openTag
	if len(open) > 0 {
		inner = &open[len(open)-1]
	}
	ended, ends := strings.CutPrefix(name, "end")
	switch {
	case name == "else" || name == "elif":
		if inner == nil || inner.elsed || inner.name != "if" && (name == "elif" || inner.name != "for") {
			return nil, atLine(line, "{%% %s %%} belongs to nothing", name)
		}
		inner.elsed = name == "else"
		if name == "else" && len(rest) > 0 && rest[0] != ":" {
			return nil, atLine(line, "{%% else %%} has %.40q behind it; it may be elif that is meant", rest[0])
		}
	case ends && templateTags[ended]:
		if inner == nil || inner.name != ended {
			return nil, atLine(line, "{%% %s %%} ends nothing that is open", name)
		}
		if len(rest) > 0 && ended != "block" {
			return nil, atLine(line, "{%% %s %%} has %.40q behind it", name, rest[0])
		}
		return open[:len(open)-1], nil
	case name == "set" && isAssignment(rest), templateAlone[name]:
	case templateTags[name]:
		open = append(open, openTag{name: name, line: line})
	default:
		return nil, atLine(line, "cloud-init knows no tag {%% %.40s %%}", name)
	}
	if len(rest) == 0 && name != "with" && name != "else" && name != "print" {
		return nil, atLine(line, "{%% %s %%} says nothing", name)
	}
	return open, nil
}

// isAssignment tells {% set x = 1 %} from {% set x %}, which has an end.
func isAssignment(tokens []string) bool {
	depth := 0
	for _, t := range tokens {
		switch t {
		case "(", "[", "{":
			depth++
		case ")", "]", "}":
			depth--
		case "=":
			if depth == 0 {
				return true
			}
		}
	}
	return false
}

// templateTokens takes apart what stands between {{ or {% and its end, where it stops: n
// is the length of it all.
func templateTokens(text string) (tokens []string, n int, problem string) {
	opening, ends := text[:2], []string{"}}", "-}}"}
	if opening == "{%" {
		ends = []string{"%}", "-%}", "+%}"}
	}
	var brackets []byte
	n = len(opening)
	if n < len(text) && (text[n] == '-' || text[n] == '+' && opening == "{%") {
		n++
	}
	for n < len(text) {
		rest := text[n:]
		if len(brackets) == 0 {
			for _, end := range ends {
				if strings.HasPrefix(rest, end) {
					return tokens, n + len(end), ""
				}
			}
		}
		r, size := utf8.DecodeRuneInString(rest)
		token := rest[:size]
		switch {
		case unicode.IsSpace(r):
			n += size
			continue
		case r == '\'' || r == '"':
			if token = templateString.FindString(rest); token == "" {
				return nil, 0, "a string in " + opening + " has no end"
			}
		case strings.ContainsRune("([{", r):
			brackets = append(brackets, map[rune]byte{'(': ')', '[': ']', '{': '}'}[r])
		case strings.ContainsRune(")]}", r):
			if len(brackets) == 0 || brackets[len(brackets)-1] != byte(r) {
				return nil, 0, opening + " has a " + token + " that closes nothing"
			}
			brackets = brackets[:len(brackets)-1]
		case strings.HasPrefix(rest, "==") || strings.HasPrefix(rest, "!=") || strings.HasPrefix(rest, "<=") || strings.HasPrefix(rest, ">="):
			token = rest[:2]
		case strings.ContainsRune("#$&?@!^`\\", r):
			return nil, 0, opening + " has a " + token + " in it, which no expression has"
		default:
			if word := templateWord.FindString(rest); word != "" {
				token = word
			}
		}
		tokens = append(tokens, token)
		n += len(token)
	}
	if len(brackets) > 0 {
		return nil, 0, opening + " has a bracket that is not closed"
	}
	return nil, 0, opening + " has no end"
}
