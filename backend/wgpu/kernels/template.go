package kernels

import (
	"embed"
	"fmt"
	"hash/fnv"
	"io/fs"
	"strings"
	"sync"
	"text/template"
)

//go:embed *.wgsl
var files embed.FS

// templates are all .wgsl files; each defines a template of its file's name.
var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"seq": func(n int) []int {
		s := make([]int, n)
		for i := range s {
			s[i] = i
		}
		return s
	},
	"add": func(a, b int) int { return a + b },
	"sub": func(a, b int) int { return a - b },
	"mul": func(a, b int) int { return a * b },
	"div": func(a, b int) int { return a / b },
}).ParseFS(files, "*.wgsl"))

// Hash identifies the templates of this build.
var Hash = sync.OnceValue(func() uint64 {
	h := fnv.New64a()
	names, _ := fs.Glob(files, "*.wgsl") // sorted; the pattern is good
	for _, name := range names {
		text, _ := files.ReadFile(name) // embedded
		fmt.Fprintf(h, "%s %d\n%s", name, len(text), text)
	}
	return h.Sum64()
})

// expand executes a template. The templates are part of the program, so an error is
// a mistake in them; it comes out as a shader that does not compile and says why.
func expand(name string, data any) string {
	var b strings.Builder
	if err := templates.ExecuteTemplate(&b, name, data); err != nil {
		return fmt.Sprintf("// %v\nerror", err)
	}
	return b.String()
}
