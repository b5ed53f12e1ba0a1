package cloudinit

import (
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// merger is one of merge_how's, as cloudinit/mergers/__init__.py reads them.
var merger = regexp.MustCompile(`^([a-z_][a-z0-9_]*)\((.*?)\)$`)

// checkMergeHow checks how a cloud-config wants to be merged with what there is: cloud-init drops the whole document
// where it does not understand that, and where no merger is for mappings, such as the document is.
func checkMergeHow(root *yaml.Node, first int) error {
	how := valueOf(root, "merge_how")
	if how == nil || how.Tag == "!!null" {
		how = valueOf(root, "merge_type")
	}
	if how == nil || how.Tag == "!!null" {
		return nil
	}
	names, ok := mergersOf(how)
	if !ok || !areMergers(names) {
		return atLine(first+how.Line-1, "cloud-init does not understand how to merge: want such as \"dict(replace)+list(append)+str()\", "+
			"or a list of entries with a name and settings, and dict among them")
	}
	return nil
}

// checkMergeType checks the header of a part that says the same; none is fine.
func checkMergeType(header string, line int) error {
	if names, ok := mergersIn(header); !ok || !areMergers(names) {
		return atLine(line, "cloud-init does not understand the header Merge-Type: %.40q: want such as \"dict(replace)+list(append)+str()\"", header)
	}
	return nil
}

// areMergers reports whether cloud-init has them, and a mapping is merged by one; none are its default.
func areMergers(names []string) bool {
	dict := len(names) == 0
	for _, name := range names {
		name = strings.TrimPrefix(name, "m_")
		if !slices.Contains([]string{"dict", "list", "str"}, name) {
			return false
		}
		dict = dict || name == "dict"
	}
	return dict
}

// mergersIn reads mergers written as text.
func mergersIn(text string) (names []string, ok bool) {
	for part := range strings.SplitSeq(text, "+") {
		part = strings.ReplaceAll(strings.TrimSpace(strings.ToLower(part)), "-", "_")
		if part == "" {
			continue
		}
		m := merger.FindStringSubmatch(part)
		if m == nil {
			return nil, false
		}
		names = append(names, m[1])
	}
	return names, true
}

// mergersOf reads the mergers of a value, text or a list.
func mergersOf(how *yaml.Node) (names []string, ok bool) {
	switch {
	case how.Tag == "!!str":
		return mergersIn(how.Value)
	case how.Kind == yaml.MappingNode:
		return nil, len(how.Content) == 0
	case how.Kind != yaml.SequenceNode:
		return nil, false
	}
	for _, entry := range how.Content {
		var name *yaml.Node
		switch entry = resolve(entry); entry.Kind {
		case yaml.MappingNode:
			name = valueOf(entry, "name")
			if settings := valueOf(entry, "settings"); settings == nil || settings.Kind == yaml.ScalarNode && settings.Tag != "!!str" {
				return nil, false
			}
		case yaml.SequenceNode:
			if len(entry.Content) > 0 {
				name = resolve(entry.Content[0])
			}
		}
		if name == nil || name.Tag != "!!str" {
			return nil, false
		}
		if text := name.Value; text != "" {
			if entry.Kind == yaml.MappingNode {
				text = strings.TrimSpace(strings.ReplaceAll(text, "-", "_"))
			}
			names = append(names, text)
		}
	}
	return names, true
}

// valueOf returns the value of a key, of which the last counts; nil for none.
func valueOf(mapping *yaml.Node, key string) (value *yaml.Node) {
	if mapping.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i < len(mapping.Content); i += 2 {
		if name := resolve(mapping.Content[i]); name.Kind == yaml.ScalarNode && name.Value == key {
			value = resolve(mapping.Content[i+1])
		}
	}
	return value
}
