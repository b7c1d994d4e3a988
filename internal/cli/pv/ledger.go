package pv

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/apr-engine/apr/contract/falsify"
	"github.com/apr-engine/apr/evidence"
	"github.com/spf13/cobra"
)

// ledgerFlags say where programs, models and evidence lie.
type ledgerFlags struct {
	root, models string
	bin, ledgers []string
	keys         []string
}

func (f *ledgerFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.root, "root", "", "the repository (default: the nearest folder above with go.mod or .git)")
	cmd.Flags().StringArrayVar(&f.bin, "bin", nil, "folder with the programs under test; may be given several times")
	cmd.Flags().StringVar(&f.models, "models", "", "folder with the models (default: models in the repository)")
	cmd.Flags().StringArrayVar(&f.ledgers, "evidence", nil, "folder with evidence; may be given several times (default: evidence in the repository)")
}

// addKeys adds the flag of commands that judge evidence. Those that write it have
// --sign instead.
func (f *ledgerFlags) addKeys(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.keys, "key", nil, "public key (Ed25519, PEM): only evidence signed by one of these counts")
}

// fill sets what was not given.
func (f *ledgerFlags) fill() error {
	if f.root == "" {
		root, err := findRoot()
		if err != nil {
			return err
		}
		f.root = root
	}
	if f.models == "" {
		f.models = filepath.Join(f.root, "models")
	}
	if len(f.ledgers) == 0 {
		f.ledgers = []string{filepath.Join(f.root, "evidence")}
	}
	return nil
}

func (f *ledgerFlags) inputs() *falsify.Inputs {
	return &falsify.Inputs{Root: f.root, Bin: f.bin, ModelDir: f.models}
}

// ledger opens the ledger for reading.
func (f *ledgerFlags) ledger() (*falsify.Ledger, error) {
	if err := f.fill(); err != nil {
		return nil, err
	}
	var keys []ed25519.PublicKey
	for _, path := range f.keys {
		k, err := evidence.ReadPublicKey(path)
		if err != nil {
			return nil, fmt.Errorf("--key: %w", err)
		}
		keys = append(keys, k)
	}
	return &falsify.Ledger{Roots: f.ledgers, Inputs: f.inputs(), Keys: keys, Now: time.Now()}, nil
}

// findRoot walks up to the folder that is the repository; without one it is the
// current folder.
func findRoot() (string, error) {
	here, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := here; ; dir = filepath.Dir(dir) {
		for _, mark := range []string{"go.mod", ".git"} {
			if _, err := os.Stat(filepath.Join(dir, mark)); err == nil {
				return relative(here, dir), nil
			}
		}
		if dir == filepath.Dir(dir) {
			return ".", nil
		}
	}
}

// relative keeps paths in messages short.
func relative(from, to string) string {
	if rel, err := filepath.Rel(from, to); err == nil {
		return rel
	}
	return to
}

// toolName is how evidence names this program.
func toolName() string {
	version := "devel"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version = info.Main.Version
	}
	return "pv " + version
}
