package cloudinit

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// cloud-init reads YAML with PyYAML. Where the YAML library of Go reads otherwise, this file makes up for it: forGo
// before the parser, check after it. What PyYAML cannot read, cloud-init ignores whole.

// noTabs is said of a tab between tokens.
const noTabs = "a tab outside of quotes: cloud-init's YAML takes spaces only"

// pythonText is a document as it is given to Go's parser.
type pythonText struct {
	data []byte
	// tab and backslash stand in the place of these two.
	tab, backslash string
}

// versionDirective may name any version 1 for PyYAML, and 1.1 for Go.
var versionDirective = regexp.MustCompile(`^%YAML[ ]+1\.[0-9]+`)

// forGo puts characters that mean nothing in the place of tabs, which are no space to PyYAML, and of the backslash of
// "\/", which Go's parser does not know, and has a directive name the version that it knows. Lines stay lines.
func forGo(data []byte) pythonText {
	unused := '\ue000' // the first for private use
	next := func() string {
		for bytes.ContainsRune(data, unused) {
			unused++
		}
		unused++
		return string(unused - 1)
	}
	t := pythonText{tab: next(), backslash: next()}
	out := make([]byte, 0, len(data)+len(data)/8)
	head := true // nothing but comments and directives so far
	for line := range bytes.Lines(data) {
		switch {
		case head && line[0] == '%':
			line = versionDirective.ReplaceAll(line, []byte("%YAML 1.1"))
		case line[0] != '#' && len(bytes.TrimSpace(line)) > 0:
			head = false
		}
		for i := 0; i < len(line); i++ {
			switch c := line[i]; {
			case c == '\t':
				out = append(out, t.tab...)
			case c == '\\' && i+1 < len(line):
				i++
				if line[i] == '/' {
					out = append(out, t.backslash...)
				} else {
					out = append(out, c)
				}
				out = append(out, line[i])
			default:
				out = append(out, c)
			}
		}
	}
	t.data = out
	return t
}

// check reports what PyYAML cannot make a value of, and restores the text in the nodes.
func (t pythonText) check(root *yaml.Node, first int) error {
	c := constructor{text: t, first: first, anchors: make(map[string]bool)}
	return c.check(root, false)
}

type constructor struct {
	text    pythonText
	first   int
	anchors map[string]bool
}

func (c *constructor) at(n *yaml.Node, format string, args ...any) error {
	return atLine(c.first+n.Line-1, format, args...)
}

// check checks a node and all below it.
func (c *constructor) check(n *yaml.Node, isKey bool) error {
	if n.Kind == yaml.ScalarNode {
		if n.Style == 0 && strings.Contains(n.Value, c.text.tab) {
			return c.at(n, noTabs)
		}
		n.Value = strings.NewReplacer(c.text.tab, "\t", c.text.backslash, "").Replace(n.Value)
	}
	if n.Anchor != "" {
		if c.anchors[n.Anchor] {
			return c.at(n, "the anchor &%s for the second time", n.Anchor)
		}
		c.anchors[n.Anchor] = true
	}
	if problem := cannotConstruct(n, isKey); problem != "" {
		return c.at(n, "%s", problem)
	}
	for i, child := range n.Content {
		key := n.Kind == yaml.MappingNode && i%2 == 0
		if key {
			if target := resolve(child); target.Kind != yaml.ScalarNode {
				return c.at(child, "%s cannot be a key for cloud-init", yamlKind(target))
			}
			if isMerge(child) && !canMerge(resolve(n.Content[i+1])) {
				return c.at(child, "what << merges is neither a mapping nor a list of mappings")
			}
		}
		if err := c.check(child, key); err != nil {
			return err
		}
	}
	return nil
}

func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isPlain(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Style == 0 }
func isMerge(n *yaml.Node) bool { return isPlain(n) && n.Value == "<<" }

func canMerge(n *yaml.Node) bool {
	if n.Kind != yaml.SequenceNode {
		return n.Kind == yaml.MappingNode
	}
	for _, child := range n.Content {
		if resolve(child).Kind != yaml.MappingNode {
			return false
		}
	}
	return true
}

// tags are those that PyYAML's safe loader makes values of (yaml/constructor.py), by the kind of node each is for.
var tags = map[string]yaml.Kind{
	"!!null": yaml.ScalarNode, "!!bool": yaml.ScalarNode, "!!int": yaml.ScalarNode, "!!float": yaml.ScalarNode,
	"!!binary": yaml.ScalarNode, "!!timestamp": yaml.ScalarNode, "!!str": yaml.ScalarNode, "!!python/unicode": yaml.ScalarNode,
	"!!map": yaml.MappingNode, "!!set": yaml.MappingNode,
	"!!seq": yaml.SequenceNode, "!!omap": yaml.SequenceNode, "!!pairs": yaml.SequenceNode,
}

// Scalars that PyYAML takes for a number or a date by their look (yaml/resolver.py), and then may fail on.
var (
	pythonDate  = regexp.MustCompile(`^([0-9]{4})-([0-9]{2})-([0-9]{2})$`)
	pythonTime  = regexp.MustCompile(`^([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})(?:[Tt]|[ \t]+)([0-9]{1,2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]*)?(?:[ \t]*(?:Z|([-+])([0-9]{1,2})(?::([0-9]{2}))?))?$`)
	noDigits    = regexp.MustCompile(`^[-+]?0(b_+|x_+)$`)
	pythonInt   = regexp.MustCompile(`^[-+]?(0b[01_]+|0[0-7_]*|0x[0-9a-fA-F_]+|[1-9][0-9_]*(:[0-5]?[0-9])*)$`)
	pythonFloat = regexp.MustCompile(`^[-+]?([0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?|\.[0-9][0-9_]*([eE][-+]?[0-9]+)?|\.(?i:inf|nan))$`)
	pythonBool  = regexp.MustCompile(`^(?i:yes|no|true|false|on|off)$`)
)

// cannotConstruct says why PyYAML makes no value of a node; empty if it does.
func cannotConstruct(n *yaml.Node, isKey bool) string {
	tag := ""
	if n.Style&yaml.TaggedStyle != 0 {
		tag = n.Tag
		switch kind, ok := tags[tag]; {
		case !ok:
			return "cloud-init's YAML does not know the tag " + tag
		case kind != n.Kind:
			return "the tag " + tag + " is for no such value as " + yamlKind(n)
		}
	}
	v := n.Value
	switch {
	case tag == "!!bool" && !pythonBool.MatchString(v), tag == "!!int" && (!pythonInt.MatchString(v) || noDigits.MatchString(v)),
		tag == "!!float" && !pythonFloat.MatchString(v), tag == "!!timestamp" && !isPythonTime(v), tag == "!!binary" && !isBase64(v):
		return "not a value of the tag " + tag
	case !isPlain(n):
	case (v == "<<" || v == "=") && !isKey:
		return "a plain " + v + " is no text to cloud-init: write it in quotes"
	case noDigits.MatchString(v):
		return "cloud-init takes " + v + " for a number, and it has no digits: write it in quotes"
	case (pythonDate.MatchString(v) || pythonTime.MatchString(v)) && !isPythonTime(v):
		return "cloud-init takes " + v + " for a date, and there is none such: write it in quotes"
	}
	return ""
}

func isBase64(s string) bool {
	_, err := base64.StdEncoding.DecodeString(strings.Map(dropSpace, s))
	return err == nil
}

// isPythonTime reports whether Python's datetime has such a moment.
func isPythonTime(s string) bool {
	m := pythonTime.FindStringSubmatch(s)
	if d := pythonDate.FindStringSubmatch(s); d != nil {
		m = append(d, "0", "0", "0", "", "0", "")
	}
	if m == nil {
		return false
	}
	year, month, day := number(m[1]), number(m[2]), number(m[3])
	date := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
	return year > 0 && date.Month() == time.Month(month) && date.Day() == day &&
		number(m[4]) < 24 && number(m[5]) < 60 && number(m[6]) < 60 && number(m[8])*60+number(m[9]) < 24*60
}

// number reads a few digits; none are 0.
func number(digits string) (n int) {
	for _, d := range digits {
		n = 10*n + int(d-'0')
	}
	return n
}
