package test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A descriptor has one owner: its number does not leave package relay, and what is above that makes no system calls.

// What may be used of package syscall above relay: the numbers of errors, and the type by
// which package net passes a socket on to who owns it.
var harmless = regexp.MustCompile(`^(E[A-Z0-9]+|RawConn)$`)

func TestTheTunnelHasNoDescriptorsAndMakesNoSystemCalls(t *testing.T) {
	for _, dir := range []string{"../tunnel", "../tunnel/stream"} {
		for name, file := range sourceOf(t, dir) {
			for _, i := range file.Imports {
				if path := strings.Trim(i.Path.Value, `"`); path == "golang.org/x/sys/unix" || path == "unsafe" {
					t.Errorf("%s imports %s", name, path)
				}
			}
			ast.Inspect(file, func(n ast.Node) bool {
				s, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				switch of, _ := s.X.(*ast.Ident); {
				case of != nil && of.Name == "syscall" && !harmless.MatchString(s.Sel.Name),
					of != nil && of.Name == "os" && s.Sel.Name == "NewFile",
					s.Sel.Name == "Fd", s.Sel.Name == "SyscallConn", s.Sel.Name == "Control":
					t.Errorf("%s uses %s", name, s.Sel.Name)
				}
				return true
			})
		}
	}
}

// What is a plain number in relay's doors, and no descriptor.
var numbers = []string{"n", "read", "written"}

func TestNoDescriptorPassesTheDoorsOfTheRelay(t *testing.T) {
	for name, file := range sourceOf(t, "../tunnel/relay") {
		check := func(what string, fields *ast.FieldList) {
			for _, number := range numbersIn(fields) {
				if !slices.Contains(numbers, number) {
					t.Errorf("%s: %s takes or returns %s, which may be a descriptor", name, what, number)
				}
			}
		}
		for _, decl := range file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && exportedReceiver(d) {
					check(d.Name.Name, d.Type.Params)
					check(d.Name.Name, d.Type.Results)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					ts, ok := spec.(*ast.TypeSpec)
					if !ok || !ts.Name.IsExported() {
						continue
					}
					switch of := ts.Type.(type) {
					case *ast.InterfaceType:
						for _, m := range of.Methods.List {
							if f, ok := m.Type.(*ast.FuncType); ok {
								check(ts.Name.Name, f.Params)
								check(ts.Name.Name, f.Results)
							}
						}
					case *ast.StructType:
						check(ts.Name.Name, exportedOnly(of.Fields))
					default:
						check(ts.Name.Name, &ast.FieldList{List: []*ast.Field{{Type: of}}})
					}
				}
			}
		}
	}
}

// numbersIn are the names of the fields that are integers, or lists of them.
func numbersIn(fields *ast.FieldList) (names []string) {
	if fields == nil {
		return nil
	}
	for _, f := range fields.List {
		kind := f.Type
		for {
			if list, ok := kind.(*ast.ArrayType); ok {
				kind = list.Elt
				continue
			}
			break
		}
		of, ok := kind.(*ast.Ident)
		if !ok || !slices.Contains([]string{"int", "int32", "uintptr"}, of.Name) {
			continue
		}
		if len(f.Names) == 0 {
			names = append(names, fmt.Sprintf("an %s without a name", of.Name))
		}
		for _, n := range f.Names {
			names = append(names, n.Name)
		}
	}
	return names
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	of := d.Recv.List[0].Type
	if pointer, ok := of.(*ast.StarExpr); ok {
		of = pointer.X
	}
	name, ok := of.(*ast.Ident)
	return ok && name.IsExported()
}

func exportedOnly(fields *ast.FieldList) *ast.FieldList {
	some := &ast.FieldList{}
	for _, f := range fields.List {
		for _, n := range f.Names {
			if n.IsExported() {
				some.List = append(some.List, &ast.Field{Names: []*ast.Ident{n}, Type: f.Type})
			}
		}
	}
	return some
}

// sourceOf are the files of a package without its tests.
func sourceOf(t *testing.T, dir string) map[string]*ast.File {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no source in %s: %v", dir, err)
	}
	files := make(map[string]*ast.File)
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		if files[path], err = parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution); err != nil {
			t.Fatal(err)
		}
	}
	return files
}
