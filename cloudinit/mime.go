package cloudinit

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/quotedprintable"
	"regexp"
	"slices"
	"strings"
)

// maxNesting bounds MIME documents within MIME documents.
const maxNesting = 8

// mimeHeader is a line of a header: a name by RFC 5322 section 2.2, a colon, a value.
var mimeHeader = regexp.MustCompile(`^([!-9;-~]+)[ \t]*:[ \t]*(.*)$`)

// gzipTypes are the types of parts that cloud-init decompresses.
var gzipTypes = []string{
	"application/gzip", "application/gzip-compressed", "application/gzipped", "application/x-compress",
	"application/x-compressed", "application/x-gunzip", "application/x-gzip", "application/x-gzip-compressed",
}

// hasMIMEVersion tells a MIME document as cloud-init does, by this header anywhere in the first 4096 bytes.
func hasMIMEVersion(data []byte) bool {
	return bytes.Contains(bytes.ToLower(data[:min(len(data), 4096)]), []byte("mime-version:"))
}

// isMIME also takes what looks meant as MIME, to say what it lacks.
func isMIME(data []byte) bool {
	return hasMIMEVersion(data) || bytes.HasPrefix(bytes.ToLower(data), []byte("content-type:"))
}

// entity is a header and what follows it.
type entity struct {
	header map[string]string // by lower-case name
	body   []string          // lines with their ends
	first  int               // the body's first line
}

// parseEntity splits lines at the first empty one.
func parseEntity(lines []string, first int) (entity, error) {
	e := entity{header: make(map[string]string)}
	last := ""
	for i, line := range lines {
		text := strings.TrimRight(line, "\r\n")
		if i == 0 && strings.HasPrefix(text, "From ") {
			continue // a line of a mailbox, which Python's parser passes over
		}
		if text == "" {
			e.body, e.first = lines[i+1:], first+i+1
			return e, nil
		}
		if text[0] == ' ' || text[0] == '\t' {
			if last == "" {
				return e, atLine(first+i, "a MIME header does not begin with white space")
			}
			e.header[last] += " " + strings.TrimSpace(text)
			continue
		}
		m := mimeHeader.FindStringSubmatch(text)
		if m == nil {
			return e, atLine(first+i, "not a line of a MIME header: %.40q; an empty line ends the header", text)
		}
		last = strings.ToLower(m[1])
		e.header[last] = m[2]
	}
	return e, atLine(first+len(lines)-1, "the document ends within its MIME header")
}

// checkMIME checks a document and everything in it.
func checkMIME(data []byte, first int) error {
	e, err := parseEntity(slices.Collect(strings.Lines(string(data))), first)
	if err != nil {
		return err
	}
	if !hasMIMEVersion(data) {
		return atLine(first, "the header MIME-Version is missing: without, cloud-init ignores the document")
	}
	return checkEntity(e, first, 0)
}

func checkEntity(e entity, line, depth int) error {
	if depth > maxNesting {
		return atLine(line, "more than %d MIME documents within each other", maxNesting)
	}
	declared, ok := e.header["content-type"]
	if !ok {
		declared = "text/plain" // RFC 2045 section 5.2
	}
	contentType, params, err := mime.ParseMediaType(declared)
	if err != nil {
		return atLine(line, "Content-Type %q: %w", declared, err)
	}
	if strings.HasPrefix(contentType, "multipart/") {
		return checkMultipart(e, params["boundary"], line, depth)
	}
	body, decoded, err := e.decode(line)
	if err != nil {
		return err
	}
	for _, name := range []string{"merge-type", "x-merge-type"} {
		if err := checkMergeType(e.header[name], line); err != nil {
			return err
		}
	}
	if !decoded {
		return checkPart(contentType, body, e.first)
	}
	if err := checkPart(contentType, body, 1); err != nil {
		return atLine(line, "in the encoded part that begins here, %w", err)
	}
	return nil
}

// checkMultipart checks the parts between the boundary's lines.
func checkMultipart(e entity, boundary string, line, depth int) error {
	if boundary == "" {
		return atLine(line, "a multipart Content-Type without a boundary")
	}
	start, parts := -1, 0
	for i, text := range e.body {
		text = strings.TrimRight(text, " \t\r\n")
		if text != "--"+boundary && text != "--"+boundary+"--" {
			continue
		}
		if start >= 0 {
			part, err := parseEntity(e.body[start:i], e.first+start)
			if err != nil {
				return err
			}
			if err := checkEntity(part, e.first+start, depth+1); err != nil {
				return err
			}
			parts++
		}
		start = i + 1
		if strings.HasSuffix(text, "--") && text != "--"+boundary {
			if parts == 0 {
				return atLine(e.first+i, "a multipart document without a part")
			}
			return nil
		}
	}
	if start < 0 {
		return atLine(line, "the boundary %q of the header occurs nowhere", boundary)
	}
	return atLine(e.first+len(e.body)-1, "the document is cut off: no closing line --%s--", boundary)
}

// decode undoes the transfer encoding and says whether there was one that changes lines; the entity is at line.
func (e entity) decode(line int) (body []byte, decoded bool, err error) {
	text := strings.Join(e.body, "")
	switch encoding := strings.ToLower(e.header["content-transfer-encoding"]); encoding {
	case "", "7bit", "8bit", "binary":
		return []byte(text), false, nil
	case "base64":
		body, err := base64.StdEncoding.DecodeString(strings.Map(dropSpace, text))
		if err != nil {
			return nil, false, atLine(e.first+badBase64Line(e.body), "not valid base64")
		}
		return body, true, nil
	case "quoted-printable":
		body, err := io.ReadAll(quotedprintable.NewReader(strings.NewReader(text)))
		if err != nil {
			return nil, false, atLine(e.first, "not valid quoted-printable text: %w", err)
		}
		return body, true, nil
	default:
		return nil, false, atLine(line, "unknown Content-Transfer-Encoding %q", encoding)
	}
}

func dropSpace(r rune) rune {
	if strings.ContainsRune(" \t\r\n", r) {
		return -1
	}
	return r
}

// badBase64Line is the index of the line where decoding stops.
func badBase64Line(lines []string) int {
	for i, line := range lines {
		var corrupt base64.CorruptInputError
		text := strings.Map(dropSpace, line)
		_, err := base64.StdEncoding.DecodeString(text)
		// A line may end within a group of four; then only its characters count.
		if errors.As(err, &corrupt) && int(corrupt) < len(text) && len(text)-int(corrupt) >= 4 {
			return i
		}
	}
	return max(len(lines)-1, 0)
}

// checkPart checks a part's content by its type. A type that is not cloud-init's own may have a part-handler among
// the user's parts, so it passes.
func checkPart(contentType string, body []byte, first int) error {
	if slices.Contains(gzipTypes, contentType) {
		plain, err := gunzip(body)
		if err != nil {
			return atLine(first, "%w", err)
		}
		if err := checkText(plain, 1); err != nil {
			return err
		}
		_, err = checkAs(kindByItsContent, plain, 1)
		return err
	}
	if !strings.HasPrefix(contentType, "text/") {
		return nil
	}
	if err := checkText(body, first); err != nil {
		return err
	}
	if contentType == "text/plain" || contentType == "text/x-not-multipart" {
		_, err := checkAs(kindByItsContent, body, first)
		return err
	}
	kind, ok := kindOfType(contentType)
	if !ok {
		return nil
	}
	// What is declared a script may be something else, and is then taken for that.
	if found, ok := kindOf(body); ok && kind == KindScript {
		kind = found
	}
	_, err := checkAs(kind, body, first)
	return err
}
