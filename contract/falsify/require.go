package falsify

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/apr-engine/apr/contract"
)

// probeTimeout bounds the commands that requirements are probed with.
const probeTimeout = 30 * time.Second

// missing returns the requirements that are not met here, each with the reason.
func (r *Runner) missing(ctx context.Context, t *contract.Test) []string {
	var out []string
	for _, req := range t.Requires {
		if why := r.lacks(ctx, t, req); why != "" {
			out = append(out, req.String()+": "+why)
		}
	}
	return out
}

// lacks says why a requirement is not met, or nothing.
func (r *Runner) lacks(ctx context.Context, t *contract.Test, req contract.Requirement) string {
	switch req.Kind {
	case "gpu":
		return r.lacksGPU(ctx, t, req.Name)
	case "backend":
		return r.lacksBackend(ctx, req.Name)
	case "command":
		return r.lacksCommand(ctx, strings.Fields(req.Name))
	case "model":
		if _, err := r.Inputs.Model(req.Name); err != nil {
			return "no such model file"
		}
	case "peer":
		if _, err := r.Inputs.Program(req.Name); err != nil {
			return "no such program"
		}
	case "file":
		if _, err := os.Stat(filepath.Join(r.Inputs.Root, req.Name)); err != nil || !filepath.IsLocal(req.Name) {
			return "no such file in the repository"
		}
	case "os":
		if runtime.GOOS != req.Name {
			return "this is " + runtime.GOOS
		}
	default:
		return "nothing can probe this kind of requirement"
	}
	return ""
}

// Places where the libraries of GPUs are found. A pattern that is not there
// costs nothing.
var (
	cudaLibraries  = []string{"/usr/lib/*/libcuda.so.1", "/usr/lib64/libcuda.so.1", "/usr/local/cuda/compat/libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"}
	vulkanDrivers  = []string{"/usr/share/vulkan/icd.d/*.json", "/etc/vulkan/icd.d/*.json", "/usr/local/share/vulkan/icd.d/*.json"}
	nvidiaControls = []string{"/dev/nvidiactl", "/dev/dxg"}
)

// device is one that apr devices --json lists.
type device struct {
	Backend  string `json:"backend"`
	Name     string `json:"name"`
	Driver   string `json:"driver"`
	Software bool   `json:"software"` // a CPU plays it, as lavapipe does
}

// devices asks the program under test what it could compute on, once; ok is false
// if it cannot say. The program loads drivers, so a broken one harms a process that
// is of no use otherwise.
func (r *Runner) devices(ctx context.Context) (list []device, ok bool) {
	r.probed.Do(func() {
		if r.lacksCommand(ctx, []string{"apr", "devices"}) != "" {
			return
		}
		out, done := r.probe(ctx, "apr", "devices", "--json")
		if !done {
			return
		}
		var answer struct {
			Devices []device `json:"devices"`
		}
		if json.Unmarshal(out, &answer.Devices) != nil && json.Unmarshal(out, &answer) != nil {
			return
		}
		r.found, r.asked = answer.Devices, true
	})
	return r.found, r.asked
}

// lacksGPU says why a test cannot have a device of a backend. A renderer in software
// counts only for a test whose commands name a device: apr uses one only then.
func (r *Runner) lacksGPU(ctx context.Context, t *contract.Test, name string) string {
	if name != "cuda" && name != "wgpu" {
		return "not a kind of GPU that can be probed"
	}
	list, asked := r.devices(ctx)
	if !asked {
		return lacksDriver(name)
	}
	software := ""
	for _, d := range list {
		switch {
		case d.Backend != name:
		case !d.Software || namesDevice(t):
			return ""
		default:
			software = d.Name
		}
	}
	if software != "" {
		return "only " + software + ", which is software, and the test names no --device"
	}
	return "apr devices lists none"
}

// namesDevice says whether a test's commands choose a device.
func namesDevice(t *contract.Test) bool {
	return slices.ContainsFunc(t.Steps, func(s contract.Step) bool {
		return strings.Contains(s.Shell.Value, "--device") ||
			slices.ContainsFunc(s.Run, func(a contract.Text) bool { return a.Value == "--device" || strings.HasPrefix(a.Value, "--device=") })
	})
}

// lacksDriver looks for what a driver installs, for programs that cannot list
// devices.
func lacksDriver(name string) string {
	any := func(patterns []string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool {
			found, err := filepath.Glob(p)
			return err == nil && len(found) > 0
		})
	}
	switch name {
	case "cuda":
		if !any(nvidiaControls) {
			return "no NVIDIA device"
		}
		if !any(cudaLibraries) {
			return "no libcuda.so.1"
		}
	case "wgpu":
		if runtime.GOOS == "linux" && !any(vulkanDrivers) && os.Getenv("VK_ICD_FILENAMES") == "" && os.Getenv("VK_DRIVER_FILES") == "" {
			return "no Vulkan driver"
		}
	}
	return ""
}

// probe runs a program for its answer and its exit code.
func (r *Runner) probe(ctx context.Context, argv ...string) (stdout []byte, ok bool) {
	path, err := r.Inputs.Program(argv[0])
	if err != nil {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	stdout, err = exec.CommandContext(ctx, path, argv[1:]...).Output()
	return stdout, err == nil
}

// lacksBackend asks the program under test. What the machine has is another
// requirement: a build without a backend fails differently from a machine without
// the device.
func (r *Runner) lacksBackend(ctx context.Context, name string) string {
	out, ok := r.probe(ctx, "apr", "version", "--json")
	var version struct {
		Backends []string `json:"backends"`
	}
	if !ok || json.Unmarshal(out, &version) != nil {
		return "apr version --json does not answer"
	}
	if !slices.Contains(version.Backends, name) {
		return "this apr has " + strings.Join(version.Backends, ", ")
	}
	return ""
}

// lacksCommand asks the program for help on a command.
func (r *Runner) lacksCommand(ctx context.Context, argv []string) string {
	if len(argv) < 2 {
		return "want a program and a subcommand"
	}
	if _, err := r.Inputs.Program(argv[0]); err != nil {
		return "no such program"
	}
	// Asked for by name: a program may answer --help to anything.
	if _, ok := r.probe(ctx, append([]string{argv[0], "help"}, argv[1:]...)...); !ok {
		return "this " + argv[0] + " has no such command"
	}
	return ""
}
