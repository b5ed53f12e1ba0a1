package cloudinit_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rum-vm/rum-agent/cloudinit"
)

func zip(text string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(text))
	w.Close()
	return b.Bytes()
}

const mimeDocument = `Content-Type: multipart/mixed;
 boundary="===1=="
MIME-Version: 1.0
Number-Attachments: 2

--===1==
Content-Type: text/cloud-config; charset="us-ascii"
MIME-Version: 1.0

#cloud-config
packages: [curl]

--===1==
Content-Type: text/x-shellscript
Content-Transfer-Encoding: base64

IyEvYmluL3NoCmVjaG8gaGkK
--===1==--
`

// userData has one good document of each kind.
var userData = map[cloudinit.Kind]string{
	cloudinit.KindCloudConfig: "#cloud-config\npackages: [curl]\nwrite_files:\n  - path: /x\n    content: |\n      Mime-Version: 1.0\n",
	cloudinit.KindArchive:     "#cloud-config-archive\n- type: text/x-shellscript\n  content: |\n    #!/bin/sh\n- |\n  #cloud-config\n  a: b\n- \"packages: [curl]\"\n",
	cloudinit.KindJSONPatch:   "#cloud-config-jsonp\n[{ \"op\": \"add\", \"path\": \"/runcmd\", \"value\": [\"true\"] }]\n",
	cloudinit.KindScript:      "#!/usr/bin/env python3\nprint(1)\n",
	cloudinit.KindBoothook:    "#cloud-boothook\n#!/bin/sh\n",
	cloudinit.KindInclude:     "#include\nhttps://example.org/a\n# more\nhttp://example.org/b\n",
	cloudinit.KindIncludeOnce: "#include-once https://example.org/a\n",
	cloudinit.KindPartHandler: "#part-handler\ndef list_types(): return []\n",
	cloudinit.KindJinja:       "## template: jinja\n#cloud-config\n{% if v1 %}\nhostname: {{ v1.local_hostname }}\n{% endif %}\n",
	cloudinit.KindMIME:        mimeDocument,
}

func TestEveryKindOfUserDataIsTaken(t *testing.T) {
	for kind, text := range userData {
		for how, data := range map[string][]byte{
			"plain": []byte(text), "after space": []byte("\n \n" + text), "compressed": zip(text), "CRLF": []byte(strings.ReplaceAll(text, "\n", "\r\n")),
		} {
			switch kind {
			case cloudinit.KindMIME, cloudinit.KindScript, cloudinit.KindBoothook, cloudinit.KindJinja:
				if how == "after space" {
					continue // which ends a MIME header, and the others begin with their first character
				}
			}
			if got, err := cloudinit.CheckUserData(data); err != nil || got != kind {
				t.Errorf("%s, %s: taken for %q, error %v", kind, how, got, err)
			}
		}
	}
	for name, text := range map[string]string{
		"nothing in it":   "#cloud-config\n",
		"document start":  "#cloud-config\n---\na: b\n...\n",
		"comment":         "#cloud-config # mine\na: b\n",
		"upper case":      "#Cloud-Config\na: b\n",
		"one MIME part":   "MIME-Version: 1.0\nContent-Type: text/x-shellscript\n\n#!/bin/sh\n",
		"own type":        "MIME-Version: 1.0\nContent-Type: text/x-mine\n\nanything\n",
		"late version":    strings.Replace(mimeDocument, "MIME-Version: 1.0\nNumber", "Number", 1),
		"quoted-print":    "MIME-Version: 1.0\nContent-Type: text/cloud-config\nContent-Transfer-Encoding: quoted-printable\n\n#cloud-config\na: =C3=A9\n",
		"gzip in MIME":    "MIME-Version: 1.0\nContent-Type: application/gzip\nContent-Transfer-Encoding: base64\n\n" + base64.StdEncoding.EncodeToString(zip("#!/bin/sh\n")) + "\n",
		"nested":          "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\npreamble\n--b\n" + mimeDocument + "\n--b--\nepilogue\n",
		"wrong script":    "MIME-Version: 1.0\nContent-Type: text/x-shellscript\n\n#cloud-config\na: b\n",
		"local include":   "#include\nfile:///etc/x\n/etc/y\n",
		"number as value": "#cloud-config\nnull\n",
	} {
		if _, err := cloudinit.CheckUserData([]byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMalformedUserDataNamesLineAndReason(t *testing.T) {
	compressed := zip(strings.Repeat("#cloud-config\n", 1000))
	flipped := bytes.Clone(compressed)
	flipped[len(flipped)-6] ^= 0xff
	for name, row := range map[string]struct{ text, want string }{
		"empty":              {"", "line 1: it is empty"},
		"spaces":             {"\n \n", "line 1: it is empty"},
		"no header":          {"packages: [curl]\n", "line 1: cloud-init knows no user-data that begins like this: \"packages: [curl]\""},
		"byte order mark":    {"\ufeff#cloud-config\na: b\n", "line 1: it begins with a byte order mark"},
		"Latin-1":            {"#cloud-config\na: b\nc: gr\xfc\xdfe\n", "line 3: not UTF-8"},
		"misspelt header":    {"#cloud-confg\na: b\n", "line 1: cloud-init knows no"},
		"longer header":      {"#cloud-configs\na: b\n", "line 1: the first line is not #cloud-config but \"#cloud-configs\""},
		"bad YAML":           {"#cloud-config\na: b\nruncmd:\n  - x\n - y\n", "line 5: not valid YAML"},
		"tab in YAML":        {"#cloud-config\na:\n\t- b\n", "line 3: a tab outside of quotes: cloud-init's YAML takes spaces only"},
		"quote never closed": {"#cloud-config\na: b\nc: \"d\ne: f\ng: h\n", "line 3: not valid YAML: found unexpected end of stream"},
		"error after blocks": {"#cloud-config\na: [1,\n  2]\nc: |\n  x\n y\nd: e\n", "line 6: not valid YAML"},
		"after empty lines":  {"\n\n#cloud-config\na: [\n", "line 4: not valid YAML"},
		"list":               {"#cloud-config\n- a\n", "line 2: a cloud-config is a mapping of keys, this is a list"},
		"text":               {"#cloud-config\nhello\n", "line 2: a cloud-config is a mapping of keys, this is a single value"},
		"second document":    {"#cloud-config\na: b\n---\nc: d\n", "line 3: a second YAML document"},
		"archive no list":    {"#cloud-config-archive\na: b\n", "line 1: a cloud-config-archive is a list"},
		"archive entry":      {"#cloud-config-archive\n- a: [\n", "line 2: not valid YAML"},
		"archive content":    {"#cloud-config-archive\n- content: \"#!/bin/sh\"\n- type: text/cloud-config\n  content: \"- x\"\n", "line 3: in the entry that begins here, line 1: a cloud-config is a mapping"},
		"archive list":       {"#cloud-config-archive\n- [a]\n", "line 2: an entry of an archive is"},
		"patch":              {"#cloud-config-jsonp\n{}\n", "line 1: a JSON patch is a list"},
		"include nothing":    {"#include\n# https://example.org\n", "line 1: it includes nothing"},
		"include no address": {"#include\nhttps://example.org\nexample.org/a\n", "line 3: not an address to include: \"example.org/a\""},
		"template of what":   {"## template: jinja\nhostname: {{ x }}\n", "line 2: the line after the template header"},
		"interpreter":        {"#! sh\n", "line 1: the interpreter after #! has no absolute path"},
		"no MIME version":    {strings.ReplaceAll(mimeDocument, "MIME-Version: 1.0\n", ""), "line 1: the header MIME-Version is missing"},
		"no boundary":        {"MIME-Version: 1.0\nContent-Type: multipart/mixed\n\n--x\n", "line 1: a multipart Content-Type without a boundary"},
		"other boundary":     {strings.Replace(mimeDocument, "===1==\"", "===2==\"", 1), "line 1: the boundary \"===2==\" of the header occurs nowhere"},
		"cut off":            {strings.TrimSuffix(mimeDocument, "--===1==--\n"), "line 17: the document is cut off: no closing line --===1==--"},
		"no part":            {"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b--\n", "line 4: a multipart document without a part"},
		"header line":        {"MIME-Version: 1.0\nContent-Type text/plain\n\n", "line 2: not a line of a MIME header"},
		"header only":        {"MIME-Version: 1.0\nContent-Type: text/plain\n", "line 2: the document ends within its MIME header"},
		"YAML in part":       {strings.Replace(mimeDocument, "[curl]", "[curl", 1), "line 11: not valid YAML"},
		"base64":             {strings.Replace(mimeDocument, "IyEv", "Iy!v", 1), "line 17: not valid base64"},
		"decoded part":       {strings.Replace(mimeDocument, "IyEvYmluL3NoCmVjaG8gaGkK", "IyEgc2gK", 1), "line 14: in the encoded part that begins here, line 1: the interpreter"},
		"encoding":           {strings.Replace(mimeDocument, "base64", "uuencode", 1), "line 14: unknown Content-Transfer-Encoding \"uuencode\""},
		"part type":          {strings.Replace(mimeDocument, "text/cloud-config;", "text/plain;", 1), ""},
		"unknown part":       {"MIME-Version: 1.0\nContent-Type: text/plain\n\nhello\n", "line 4: cloud-init knows no user-data"},
		"truncated gzip":     {string(compressed[:len(compressed)-9]), "gzip: the file is cut off, after"},
		"damaged gzip":       {string(flipped), "gzip: gzip: invalid checksum"},
		"gzip header":        {"\x1f\x8b\x00", "gzip: "},
		"YAML in gzip":       {string(zip("#cloud-config\na: [\n")), "line 2: not valid YAML"},
	} {
		_, err := cloudinit.CheckUserData([]byte(row.text))
		if row.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: error %v\nwant %s", name, err, row.want)
		}
	}
}

// TestUserDataIsTakenWhereCloudInitTakesIt reads cases that cloud-init itself judges in test/e2e/cloudinit.
func TestUserDataIsTakenWhereCloudInitTakesIt(t *testing.T) {
	for dir, taken := range map[string]bool{"taken": true, "refused": false} {
		files, err := filepath.Glob(filepath.Join("testdata", "user-data-cases", dir, "*"))
		if err != nil || len(files) < 10 {
			t.Fatalf("%d cases, error %v", len(files), err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = cloudinit.CheckUserData(data)
			switch {
			case taken && err != nil:
				t.Errorf("%s: %v", file, err)
			case !taken && err == nil:
				t.Errorf("%s is taken", file)
			case !taken && !regexp.MustCompile(`^(line [0-9]+|gzip): .+`).MatchString(err.Error()):
				t.Errorf("%s: no line or no reason in %v", file, err)
			}
		}
	}
}

// TestWhatCloudInitCannotReadIsSaidWithItsLine has the case's name, and what is said of it.
func TestWhatCloudInitCannotReadIsSaidWithItsLine(t *testing.T) {
	for name, want := range map[string]string{
		"tab-between.yaml":      "line 2: a tab outside of quotes",
		"tab-at-end.yaml":       "line 2: a tab outside of quotes",
		"tag.yaml":              "line 2: cloud-init's YAML does not know the tag !mine",
		"impossible-date.yaml":  "line 4: cloud-init takes 2001-99-99 for a date, and there is none such: write it in quotes",
		"list-key.yaml":         "line 2: a list cannot be a key",
		"archive-bad-type.yaml": "line 2: the type of the entry that begins here is \"nonsense\": want such as text/cloud-config",
		"archive-number.yaml":   "line 2: \"x\" of the entry that begins here becomes a header, and has a value that is not text",
		"jinja-include.txt":     "line 2: cloud-init knows no template of include",
		"yaml-directive.yaml":   "line 1: cloud-init knows no user-data that begins like this: \"%YAML 1.2\"",
		"merge-how-word.yaml":   "line 2: cloud-init does not understand how to merge",
		"script-below.txt":      "line 1: space before the first line makes it no script to cloud-init",
		"more-behind.gz":        "gzip: ",
	} {
		data, err := os.ReadFile(filepath.Join("testdata", "user-data-cases", "refused", name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cloudinit.CheckUserData(data); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nwant %s", name, err, want)
		}
	}
}

func TestNestingIsBounded(t *testing.T) {
	doc := "Content-Type: text/x-shellscript\n\n#!/bin/sh\n"
	for i := range 50 {
		b := strings.Repeat("b", i+1)
		doc = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=" + b + "\n\n--" + b + "\n" + doc + "\n--" + b + "--\n"
	}
	if _, err := cloudinit.CheckUserData([]byte(doc)); err == nil || !strings.Contains(err.Error(), "within each other") {
		t.Errorf("error %v", err)
	}
}

func FuzzCheckUserData(f *testing.F) {
	for _, text := range userData {
		f.Add([]byte(text))
	}
	f.Add(zip(mimeDocument))
	f.Fuzz(func(t *testing.T, data []byte) {
		kind, err := cloudinit.CheckUserData(data)
		if (kind == "") != (err != nil) && err == nil {
			t.Fatalf("neither a kind nor an error")
		}
		if err != nil && !strings.Contains(err.Error(), "line ") && !strings.HasPrefix(err.Error(), "gzip: ") {
			t.Fatalf("error without a line: %v", err)
		}
	})
}
