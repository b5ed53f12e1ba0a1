package libvirt

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// reading are the calls of the daemon that change no domain and no network.
var reading = regexp.MustCompile(`^(Connect(ToURI|Close|List.*)|SubscribeEvents|(Domain|Network)(Lookup.*|Get.*|Is.*|InterfaceAddresses))$`)

func TestOnlyReadingCallsAreMade(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if client, ok := call.X.(*ast.SelectorExpr); ok && client.Sel.Name == "lv" {
				calls++
				if !reading.MatchString(call.Sel.Name) {
					t.Errorf("%s: %s is no reading call", fset.Position(call.Pos()), call.Sel.Name)
				}
			}
			return true
		})
	}
	if calls == 0 {
		t.Error("no calls were found")
	}
}
