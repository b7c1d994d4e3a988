package apr

import (
	"bufio"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/internal/cpufeat"
	"github.com/apr-engine/apr/kernel"
	"github.com/spf13/cobra"
)

// Version is the release; a build may set it with -ldflags -X.
var Version = "0.1.0-dev"

// versionInfo is what apr version shows.
type versionInfo struct {
	Version  string       `json:"version"`
	Commit   string       `json:"commit"` // empty outside a repository
	Modified bool         `json:"modified"`
	Go       string       `json:"go"`
	Platform string       `json:"platform"`
	CPU      cpuInfo      `json:"cpu"`
	Backends []string     `json:"backends"`
	Kernels  []kernelInfo `json:"kernels"`
}

type cpuInfo struct {
	Threads  int    `json:"threads"`
	Hardware string `json:"hardware"` // the highest level of vector code it can run
	Level    string `json:"level"`    // the one in use, which APR_CPU can lower
}

type kernelInfo struct {
	Kernel  string `json:"kernel"`
	Variant string `json:"variant"`
}

func newVersion() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version [flags]",
		Short: "Show the version, the processor and the kernels in use",
		Long: `Show version, commit, Go version, the level of vector instructions that the
processor offers and the one in use, and how many kernels run at each level (with
--verbose, each kernel).
The environment variable APR_CPU (generic, avx2, avx512; on arm64 generic, neon, dotprod) lowers the level.`,
		Example: `  apr version
  APR_CPU=avx2 apr version --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			info := collectVersion(logger(cmd))
			if asJSON {
				return stdout(cmd).json(info)
			}
			verbose, err := cmd.Flags().GetBool("verbose")
			if err != nil {
				return err
			}
			return info.print(stdout(cmd), verbose)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q", args[0])
	}
	return nil
}

func collectVersion(log *slog.Logger) versionInfo {
	// A kernel that is wrong on this machine is replaced; show what really runs.
	for _, f := range kernel.SelfTest() {
		log.Warn("kernel failed its self-test and runs in plain Go", "kernel", f.Kernel, "level", f.Level, "error", f.Err)
	}
	info := versionInfo{
		Version: Version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		CPU:      cpuInfo{runtime.NumCPU(), cpufeat.Hardware().String(), cpufeat.Best().String()},
		Backends: engine.Backends(),
	}
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, s := range build.Settings {
			switch s.Key {
			case "vcs.revision":
				info.Commit = s.Value
			case "vcs.modified":
				info.Modified = s.Value == "true"
			}
		}
	}
	for _, v := range kernel.Variants() {
		info.Kernels = append(info.Kernels, kernelInfo{v.Kernel, v.Level.String()})
	}
	return info
}

// print shows the kernels one by one if verbose, else how many run at each level.
func (v versionInfo) print(out *output, verbose bool) error {
	commit := v.Commit
	if commit == "" {
		commit = "unknown"
	}
	if v.Modified {
		commit += " with changes"
	}
	levels := map[string]int{}
	rows := make([][]string, len(v.Kernels))
	for i, k := range v.Kernels {
		levels[k.Variant]++
		rows[i] = []string{"  " + k.Kernel, k.Variant}
	}
	var counts []string
	for _, level := range slices.Sorted(maps.Keys(levels)) {
		counts = append(counts, fmt.Sprintf("%d %s", levels[level], level))
	}
	err := out.buffered(func(w *bufio.Writer) {
		fmt.Fprintf(w, "apr %s\ncommit    %s\ngo        %s %s\n", v.Version, commit, v.Go, v.Platform)
		fmt.Fprintf(w, "cpu       %s, %s in use, %s possible\n", plural(v.CPU.Threads, "thread"), v.CPU.Level, v.CPU.Hardware)
		fmt.Fprintf(w, "backends  %s\nkernels   %s\n", strings.Join(v.Backends, ", "), strings.Join(counts, ", "))
	})
	if err != nil || !verbose {
		return err
	}
	return out.table(rows)
}
