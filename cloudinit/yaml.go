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
	decoder := yaml.NewDecoder(bytes.NewReader(data))
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
			return doc.Content[0], nil
		}
	}
	return nil, atLine(first+badYAMLLine(data), "not valid YAML: %s", yamlReason(err))
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
	return nil
}

func kindByPrefix(line string) bool {
	kind, ok := kindOf([]byte(line))
	return ok && kind == KindCloudConfig
}

// checkArchive wants a list of documents, each a string or a mapping with its content.
func checkArchive(data []byte, first int) error {
	root, err := parseYAML(data, first)
	if err != nil {
		return err
	}
	if root == nil || root.Kind != yaml.SequenceNode {
		return atLine(first, "a cloud-config-archive is a list of documents")
	}
	for _, entry := range root.Content {
		line := first + entry.Line - 1
		var part struct {
			Type    string `yaml:"type"`
			Content string `yaml:"content"`
		}
		switch entry.Kind {
		case yaml.ScalarNode:
			part.Content = entry.Value
		case yaml.MappingNode:
			if err := entry.Decode(&part); err != nil {
				return atLine(line, "not an entry of an archive: %s", yamlReason(err))
			}
		default:
			return atLine(line, "an entry of an archive is a string or a mapping with type and content, this is %s", yamlKind(entry))
		}
		if err := checkArchived(part.Type, []byte(part.Content)); err != nil {
			return atLine(line, "in the entry that begins here, %w", err)
		}
	}
	return nil
}

// checkArchived checks an entry; without a type and a header it is a cloud-config.
func checkArchived(contentType string, data []byte) error {
	if contentType != "" {
		return checkPart(contentType, data, 1)
	}
	if kind, ok := kindOf(data); ok {
		_, err := checkAs(kind, data, 1)
		return err
	}
	return checkCloudConfig(data, 1)
}

// checkJSONPatch wants a list of operations; JSON is YAML.
func checkJSONPatch(data []byte, first int) error {
	root, err := parseYAML(data, first)
	if err != nil {
		return err
	}
	if root == nil || root.Kind != yaml.SequenceNode {
		return atLine(first, "a JSON patch is a list of operations (RFC 6902)")
	}
	return nil
}
