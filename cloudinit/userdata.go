package cloudinit

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// Kind is a format of user-data.
type Kind string

// The formats that cloud-init tells apart, without what is only legal inside a MIME document.
const (
	KindCloudConfig  Kind = "cloud-config"
	KindArchive      Kind = "cloud-config-archive"
	KindJSONPatch    Kind = "cloud-config-jsonp"
	KindScript       Kind = "script"
	KindBoothook     Kind = "boothook"
	KindInclude      Kind = "include"
	KindIncludeOnce  Kind = "include-once"
	KindPartHandler  Kind = "part-handler"
	KindJinja        Kind = "jinja template"
	KindMIME         Kind = "MIME"
	kindByItsContent Kind = ""
)

// format is how cloud-init recognizes a kind: by what the document begins with, or by the type of a MIME part.
type format struct {
	kind   Kind
	prefix string
	mime   string
}

// formats has a prefix before any that it begins with, as cloud-init tries them.
var formats = []format{
	{KindArchive, "#cloud-config-archive", "text/cloud-config-archive"},
	{KindJSONPatch, "#cloud-config-jsonp", "text/cloud-config-jsonp"},
	{KindJinja, "## template: jinja", "text/jinja2"},
	{KindBoothook, "#cloud-boothook", "text/cloud-boothook"},
	{KindCloudConfig, "#cloud-config", "text/cloud-config"},
	{KindPartHandler, "#part-handler", "text/part-handler"},
	{KindIncludeOnce, "#include-once", "text/x-include-once-url"},
	{KindInclude, "#include", "text/x-include-url"},
	{KindScript, "#!", "text/x-shellscript"},
}

// kindOfType tells a kind by the type of a part.
func kindOfType(contentType string) (Kind, bool) {
	i := slices.IndexFunc(formats, func(f format) bool { return f.mime == contentType })
	if i < 0 {
		return "", false
	}
	return formats[i].kind, true
}

func (k Kind) contentType() string {
	return formats[slices.IndexFunc(formats, func(f format) bool { return f.kind == k })].mime
}

// maxUserData bounds what compressed user-data may grow to, in bytes.
const maxUserData = 64 << 20

// CheckUserData tells the format of a user-data document, compressed or not. A document that cloud-init would not
// understand is an error that names the line and the reason.
func CheckUserData(data []byte) (Kind, error) {
	data, err := gunzip(data)
	if err != nil {
		return "", err
	}
	return check(data, 1)
}

// gunzip returns what compressed data holds, and other data as it is.
func gunzip(data []byte) ([]byte, error) {
	if !bytes.HasPrefix(data, []byte{0x1f, 0x8b}) { // RFC 1952 section 2.3.1
		return data, nil
	}
	plain, err := gunzipMembers(bufio.NewReader(bytes.NewReader(data)))
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("gzip: the file is cut off, after %d bytes of content in line %d", len(plain), 1+bytes.Count(plain, []byte("\n")))
	}
	if err != nil {
		return nil, fmt.Errorf("gzip: %w, after %d bytes of content", err, len(plain))
	}
	if len(plain) > maxUserData {
		return nil, fmt.Errorf("gzip: more than %d MiB of content", maxUserData>>20)
	}
	return plain, nil
}

// gunzipMembers reads members until the end, or until zeros that pad it, which gzip(1) and Python pass over.
func gunzipMembers(r *bufio.Reader) (plain []byte, err error) {
	z, err := gzip.NewReader(r)
	for err == nil {
		z.Multistream(false)
		var part []byte
		part, err = io.ReadAll(io.LimitReader(z, maxUserData+1-int64(len(plain))))
		plain = append(plain, part...)
		if err != nil || len(plain) > maxUserData {
			break
		}
		next, end := r.Peek(1)
		for end == nil && next[0] == 0 {
			_, _ = r.Discard(1)
			next, end = r.Peek(1)
		}
		if end != nil {
			break
		}
		err = z.Reset(r)
	}
	return plain, err
}

// atLine is an error in a line of the document; lines count from 1.
func atLine(line int, format string, args ...any) error {
	return fmt.Errorf("line %d: %w", line, fmt.Errorf(format, args...))
}

// check tells the kind of a document whose first line is line first of what the user wrote.
func check(data []byte, first int) (Kind, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return "", atLine(first, "it is empty")
	}
	if err := checkText(data, first); err != nil {
		return "", err
	}
	// A header of another format decides first: a MIME header may then be in what the document contains.
	if _, ok := kindOf(data); !ok && isMIME(data) {
		return KindMIME, checkMIME(data, first)
	}
	return checkAs(kindByItsContent, data, first)
}

func checkText(data []byte, first int) error {
	for i, line := range bytes.Split(data, []byte("\n")) {
		if !utf8.Valid(line) {
			return atLine(first+i, "not UTF-8 text")
		}
	}
	return nil
}

// kindOf tells a kind by what the document begins with; space before it does not matter to cloud-init.
func kindOf(data []byte) (Kind, bool) {
	head := bytes.TrimSpace(data)
	text := strings.ToLower(string(head[:min(len(head), 64)]))
	for _, f := range formats {
		if strings.HasPrefix(text, f.prefix) {
			return f.kind, true
		}
	}
	return "", false
}

// firstOfAll are the kinds that cloud-init recognizes after white space, and then fails on.
var firstOfAll = []Kind{KindScript, KindBoothook, KindJinja}

// checkAs checks a document that is no MIME document and is of the given kind, or of the one its content tells.
func checkAs(kind Kind, data []byte, first int) (Kind, error) {
	if kind == kindByItsContent {
		// A byte order mark is no space to cloud-init: it would ignore the whole document.
		if bytes.HasPrefix(data, []byte("\ufeff")) {
			return "", atLine(first, "it begins with a byte order mark: save it without")
		}
		var ok bool
		if kind, ok = kindOf(data); !ok {
			return "", atLine(first, "cloud-init knows no user-data that begins like this: %.40q; the first line is #cloud-config, "+
				"#! and an interpreter, #include, #cloud-boothook, ## template: jinja or a MIME header", firstLine(data))
		}
	}
	if found, _ := kindOf(data); found == kind && slices.Contains(firstOfAll, kind) && strings.ContainsRune(" \t\r\n", rune(data[0])) {
		return "", atLine(first, "space before the first line makes it no %s to cloud-init", kind)
	}
	text := bytes.TrimLeft(data, " \r\n") // a tab is no space to YAML
	first += bytes.Count(data[:len(data)-len(text)], []byte("\n"))
	data = text
	switch kind {
	case KindCloudConfig:
		return kind, checkCloudConfig(data, first)
	case KindArchive:
		return kind, checkArchive(data, first)
	case KindJSONPatch:
		return kind, checkJSONPatch(data, first)
	case KindInclude, KindIncludeOnce:
		return kind, checkInclude(data, first)
	case KindJinja:
		return kind, checkJinja(data, first)
	case KindScript:
		return kind, checkScript(data, first)
	case KindBoothook:
		return kind, checkBoothook(data, first)
	default:
		return kind, nil
	}
}

func firstLine(data []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(data), []byte("\n"))
	return string(line)
}

// checkInclude wants at least one address, and each of a kind that cloud-init fetches.
func checkInclude(data []byte, first int) error {
	found := false
	for i, line := range strings.Split(string(data), "\n") {
		for _, prefix := range []string{"#include-once", "#include"} {
			if strings.HasPrefix(strings.ToLower(line), prefix) {
				line = line[len(prefix):]
				break
			}
		}
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		u, err := url.Parse(line)
		if err != nil || !slices.Contains([]string{"http", "https", "file"}, u.Scheme) && !strings.HasPrefix(line, "/") {
			return atLine(first+i, "not an address to include: %.60q", line)
		}
		found = true
	}
	if !found {
		return atLine(first, "it includes nothing: addresses follow, one a line")
	}
	return nil
}

// checkScript wants an interpreter: without, the kernel does not run it.
func checkScript(data []byte, first int) error {
	line := strings.TrimSpace(strings.TrimPrefix(firstLine(data), "#!"))
	if !strings.HasPrefix(line, "/") {
		return atLine(first, "the interpreter after #! has no absolute path: %.40q", line)
	}
	return nil
}

// checkBoothook wants a script behind the header: without an interpreter, the kernel does not run it.
func checkBoothook(data []byte, first int) error {
	script := bytes.TrimLeft(bytes.TrimPrefix(data, []byte("#cloud-boothook")), " \t\r\n")
	first += bytes.Count(data[:len(data)-len(script)], []byte("\n"))
	if !bytes.HasPrefix(script, []byte("#!")) {
		return atLine(first, "a boothook is #cloud-boothook, and in the next line #! and an interpreter, not %.40q", firstLine(script))
	}
	return checkScript(script, first)
}

// checkJSONPatch wants a list of operations, in JSON alone.
func checkJSONPatch(data []byte, first int) error {
	const header = "#cloud-config-jsonp"
	text, ok := bytes.CutPrefix(data, []byte(header))
	if !ok {
		return atLine(first, "the first line is not %s but %.40q", header, firstLine(data))
	}
	var patch []struct {
		Op   string `json:"op"`
		Path string `json:"path"`
	}
	err := json.Unmarshal(text, &patch)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return atLine(first+bytes.Count(text[:syntax.Offset], []byte("\n")), "not valid JSON: %w", err)
	}
	if err != nil || patch == nil {
		return atLine(first, "a JSON patch is a list of operations (RFC 6902)")
	}
	return nil
}
