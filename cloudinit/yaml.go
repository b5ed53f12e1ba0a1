package cloudinit

import (
	"bytes"
	"errors"
	"io"
	"regexp"

	"go.yaml.in/yaml/v3"
)

// yamlError is how the YAML library words an error. Its line is often that of the enclosing block, and sometimes
// one too few.
var yamlError = regexp.MustCompile(`^yaml: (?:line \d+: )?(?s:(.*))$`)

func yamlReason(err error) string { return yamlError.ReplaceAllString(err.Error(), "$1") }

// parseYAML returns the root of the one document in data, nil for an empty one.
func parseYAML(data []byte, first int) (*yaml.Node, error) {
	text := forGo(data)
	decoder := yaml.NewDecoder(bytes.NewReader(text.data))
	var doc, second yaml.Node
	err := decoder.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err == nil {
		err = decoder.Decode(&second)
		if err == nil {
			return nil, atLine(first+second.Line-1, "a second YAML document begins here: cloud-init reads only one")
		}
		if errors.Is(err, io.EOF) {
			return doc.Content[0], text.check(doc.Content[0], first)
		}
	}
	bad := badYAMLLine(text.data)
	if lines := bytes.SplitN(data, []byte("\n"), bad+2); bad < len(lines) && bytes.ContainsRune(lines[bad], '\t') {
		return nil, atLine(first+bad, noTabs)
	}
	return nil, atLine(first+bad, "not valid YAML: %s", yamlReason(err))
}

// badYAMLLine is the index of the line where what is not YAML begins: the lines before it are YAML, and with it, or any
// more, they are not. For a quote or bracket that is never closed it is the line that opens it.
func badYAMLLine(data []byte) int {
	lines := bytes.SplitAfter(data, []byte("\n"))
	offsets := make([]int, 1, len(lines)+1)
	for _, line := range lines {
		offsets = append(offsets, offsets[len(offsets)-1]+len(line))
	}
	isYAML := func(n int) bool { return yaml.Unmarshal(data[:offsets[n]], new(yaml.Node)) == nil }

	good, bad := 0, len(lines)
	for bad-good > 1 {
		if middle := (good + bad) / 2; isYAML(middle) {
			good = middle
		} else {
			bad = middle
		}
	}
	// A bracket that is closed some lines later also makes lines that are not YAML yet, so more of them may be. In
	// a document too long to try them all, within some tenths of a second, the answer stays with the first.
	budget := 8 << 20
	for n := len(lines) - 1; n > good && budget > 0; n-- {
		if isYAML(n) {
			return n
		}
		budget -= offsets[n]
	}
	return good
}

func yamlKind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "a mapping"
	case yaml.AliasNode:
		return "an alias"
	default:
		return "a single value"
	}
}

// checkCloudConfig wants a mapping; what the keys mean depends on the version of cloud-init in the guest.
func checkCloudConfig(data []byte, first int) error {
	// "#cloud-configs" is a cloud-config to the part of cloud-init that sorts documents, and none to the one that reads it.
	if line := firstLine(data); len(line) > len("#cloud-config") && line[0] == '#' && kindByPrefix(line) &&
		line[len("#cloud-config")] > ' ' {
		return atLine(first, "the first line is not #cloud-config but %.40q", line)
	}
	root, err := parseYAML(data, first)
	if err != nil || root == nil {
		return err
	}
	if root.Kind != yaml.MappingNode && root.Tag != "!!null" {
		return atLine(first+root.Line-1, "a cloud-config is a mapping of keys, this is %s", yamlKind(root))
	}
	return checkMergeHow(root, first)
}

func kindByPrefix(line string) bool {
	kind, ok := kindOf([]byte(line))
	return ok && kind == KindCloudConfig
}
