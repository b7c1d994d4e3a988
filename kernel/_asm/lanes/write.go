package lanes

import (
	"flag"
	"fmt"
	"log"
	"os"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
)

// Write compiles what was built in c and writes <dir>/<name>_amd64.s and the
// stubs <dir>/<name>_stubs_amd64.go; the flag -dir names the directory. The
// files say they were made by "go run -C _asm ./<name>".
func Write(c *build.Context, name string) {
	dir := flag.String("dir", "..", "directory of the output")
	flag.Parse()
	if err := write(c, name, *dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(c *build.Context, name, dir string) error {
	f, err := c.Result()
	if err != nil {
		build.LogError(log.New(os.Stderr, "", 0), err, 0)
		return err
	}
	if err := pass.Compile.Execute(f); err != nil {
		return err
	}
	cfg := printer.Config{Argv: []string{"go", "run", "-C", "_asm", "./" + name}, Pkg: "kernel"}
	outputs := []struct {
		file string
		p    printer.Printer
	}{
		{name + "_amd64.s", printer.NewGoAsm(cfg)},
		{name + "_stubs_amd64.go", printer.NewStubs(cfg)},
	}
	for _, o := range outputs {
		text, err := o.p.Print(f)
		if err != nil {
			return err
		}
		if err := os.WriteFile(dir+"/"+o.file, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
