package setup

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// element is an element of an XML text, with the place of its bytes.
type element struct {
	name     xml.Name
	attrs    []xml.Attr
	start    int // of the start tag
	inner    int // behind the start tag
	end      int // behind the end tag; inner for an empty-element tag
	children []*element
}

// parseText reads a whole document and returns its root element.
func parseText(text string) (*element, error) {
	dec := xml.NewDecoder(strings.NewReader(text))
	top := &element{}
	open := []*element{top}
	for {
		start := int(dec.InputOffset())
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading XML: %w", err)
		}
		parent := open[len(open)-1]
		switch t := token.(type) {
		case xml.StartElement:
			e := &element{name: t.Name, attrs: slices.Clone(t.Attr), start: start, inner: int(dec.InputOffset())}
			parent.children = append(parent.children, e)
			open = append(open, e)
		case xml.EndElement:
			parent.end = int(dec.InputOffset())
			open = open[:len(open)-1]
		}
	}
	if len(top.children) != 1 {
		return nil, errors.New("reading XML: no single root element")
	}
	return top.children[0], nil
}

// child returns the first child of that local name, or nil; a nil element has no children.
func (e *element) child(name string) *element {
	if e == nil {
		return nil
	}
	for _, c := range e.children {
		if c.name.Local == name {
			return c
		}
	}
	return nil
}

// attr returns the value of an attribute; a nil element has none.
func (e *element) attr(name string) string {
	if e == nil {
		return ""
	}
	for _, a := range e.attrs {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// splice is one edit of a text: what is between from and to gives way to with.
type splice struct {
	from, to int
	with     string
}

// apply makes edits that do not overlap. Edits at one place keep their order.
func apply(text string, edits []splice) string {
	slices.SortStableFunc(edits, func(a, b splice) int { return a.from - b.from })
	var b strings.Builder
	at := 0
	for _, e := range edits {
		b.WriteString(text[at:e.from])
		b.WriteString(e.with)
		at = e.to
	}
	b.WriteString(text[at:])
	return b.String()
}

// spaceBefore returns where the white space in front of an offset begins.
func spaceBefore(text string, offset int) int {
	return len(strings.TrimRight(text[:offset], " \t\r\n"))
}

// insertDevices returns a domain definition with the devices added, each behind the last device of its kind.
func insertDevices(text string, devices []device) (string, error) {
	root, err := parseText(text)
	if err != nil {
		return "", err
	}
	list := root.child("devices")
	if list == nil || len(list.children) == 0 {
		return "", errors.New("the domain definition has no devices")
	}
	var edits []splice
	for _, d := range devices {
		before := list.children[len(list.children)-1]
		for _, c := range list.children {
			if c.name.Local == d.kind {
				before = c
			}
		}
		space := text[spaceBefore(text, before.start):before.start]
		edits = append(edits, splice{before.end, before.end, space + indentAs(text, before, d.xml)})
	}
	return apply(text, edits), nil
}

// indentAs returns the XML of a device with lines that begin as deep as the element does.
func indentAs(text string, e *element, xml string) string {
	space := text[spaceBefore(text, e.start):e.start]
	return strings.ReplaceAll(xml, "\n", "\n"+space[strings.LastIndexByte(space, '\n')+1:])
}

// removal is the edit that takes an element out together with the white space in front of it.
func removal(text string, e *element) splice {
	return splice{spaceBefore(text, e.start), e.end, ""}
}
