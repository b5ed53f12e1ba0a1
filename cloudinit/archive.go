package cloudinit

import (
	"encoding/base64"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// checkArchive wants a list of documents, each a string or a mapping with its content. On some mistakes in it cloud-init
// fails with an exception, and then does nothing at all, not even what vendor-data says.
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
		entry = resolve(entry)
		var err error
		switch {
		case entry.Tag == "!!null": // passed over
		case entry.Kind == yaml.MappingNode:
			err = checkEntry(entry, line)
		case isText(entry):
			err = checkArchived("", entry.Value, line)
		default:
			err = atLine(line, "an entry of an archive is a string or a mapping with type and content, this is %s", yamlKind(entry))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// isText reports whether a value is text to cloud-init.
func isText(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Tag == "!!str" && !(isPlain(n) && (pythonBool.MatchString(n.Value) ||
		pythonInt.MatchString(n.Value) || pythonFloat.MatchString(n.Value) || isPythonTime(n.Value)))
}

// checkEntry checks an entry with a type and headers of its own.
func checkEntry(entry *yaml.Node, line int) error {
	for i := 0; i < len(entry.Content); i += 2 {
		key, value := resolve(entry.Content[i]), resolve(entry.Content[i+1])
		if !isText(key) {
			return atLine(line, "a key that is not text, %.40q, in the entry that begins here", key.Value)
		}
		switch name := strings.ToLower(key.Value); {
		case slices.Contains([]string{"content", "type", "filename", "launch-index", "content-disposition", "number-attachments", "content-type"}, name):
		case value.Tag != "!!null" && !isText(value):
			return atLine(line, "%.40q of the entry that begins here becomes a header, and has a value that is not text", key.Value)
		case name == "merge-type" || name == "x-merge-type":
			if err := checkMergeType(value.Value, line); err != nil {
				return err
			}
		}
	}
	contentType := valueOf(entry, "type")
	if contentType == nil || contentType.Tag == "!!null" || contentType.Value == "" && isText(contentType) {
		contentType = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str"}
	}
	if !isText(contentType) {
		return atLine(line, "the type of the entry that begins here is not text")
	}
	content := valueOf(entry, "content")
	switch {
	case content == nil:
		return atLine(line, "no content in the entry that begins here")
	case content.Tag == "!!binary":
		data, err := base64.StdEncoding.DecodeString(strings.Map(dropSpace, content.Value))
		if err != nil {
			return atLine(line, "not valid base64 in the entry that begins here")
		}
		return checkArchived(contentType.Value, string(data), line)
	case !isText(content):
		return atLine(line, "the content of the entry that begins here is not text")
	}
	return checkArchived(contentType.Value, content.Value, line)
}

// checkArchived checks the content of the entry at line; without a type and a header it is a cloud-config. Unlike what comes
// by itself or in MIME, it is not looked into for what it includes, nor for what it really is.
func checkArchived(contentType, content string, line int) error {
	data := []byte(content)
	kind, known := kindOf(data)
	if contentType != "" {
		contentType, _, _ = strings.Cut(strings.ToLower(contentType), ";")
		contentType = strings.TrimSpace(contentType)
		main, _, ok := strings.Cut(contentType, "/")
		switch {
		case !ok:
			return atLine(line, "the type of the entry that begins here is %.40q: want such as text/cloud-config", contentType)
		case main == "multipart", contentType == "text/plain", contentType == "text/x-not-multipart", slices.Contains(gzipTypes, contentType):
			return atLine(line, "cloud-init does nothing with an entry of the type %s", contentType)
		}
		kind, known = kindOfType(contentType)
		if !known {
			return nil // a part-handler may be for it
		}
	} else if !known {
		kind = KindCloudConfig
	}
	switch kind {
	case KindInclude, KindIncludeOnce, KindArchive:
		return atLine(line, "cloud-init does not look into %s within an archive", kind)
	}
	err := checkText(data, 1)
	if err == nil {
		_, err = checkAs(kind, data, 1)
	}
	if err != nil {
		return atLine(line, "in the entry that begins here, %w", err)
	}
	return nil
}
