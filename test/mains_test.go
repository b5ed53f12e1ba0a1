package test

import (
	"go/ast"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// What changes the process for everybody in it, and not only for who calls.
var processWide = regexp.MustCompile(`^(runtime\.GOMAXPROCS|rlimit\.\w+|debug\.Set\w+|signal\.(Ignore|Reset)|slog\.SetDefault|log\.Set\w+|` +
	`os\.(Setenv|Unsetenv|Clearenv|Chdir)|(unix|syscall)\.(SchedSetaffinity|Setrlimit|Prlimit|Umask|Chdir|Setpriority|Unshare|Setns))$`)

func TestOnlyMainsChangeWhatIsOfTheWholeProcess(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.Name}} {{.Dir}}", module+"agent-guest/...", module+"agent-host/...",
		module+"tunnel/...", module+"portwatch/...", module+"cloudinit/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		name, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "main" {
			continue
		}
		for path, file := range sourceOf(t, dir) {
			eachUse(file, func(what string) {
				if processWide.MatchString(what) {
					t.Errorf("%s, which is no main, uses %s", path, what)
				}
			})
		}
	}
}

// eachUse calls f for every use of a package's name in a file, as in "os.Chdir".
func eachUse(file *ast.File, f func(what string)) {
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if of, ok := s.X.(*ast.Ident); ok {
				f(of.Name + "." + s.Sel.Name)
			}
		}
		return true
	})
}
