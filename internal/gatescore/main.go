// Gatescore measures the parity gate and writes what it finds: the noise
// between sound ways to compute (docs/gate-calibration.md) and what the gate
// rejects and accepts (docs/gate-score.md), both with their numbers as JSON in
// internal/gatescore/testdata. Run it in the repository's root; it takes some
// minutes:
//
//	go run ./internal/gatescore [calibration | score | pages]
//
// With pages it measures nothing and writes the pages of the numbers it finds.
// A GPU backend is scored on a machine that has one (scripts/gpu/score), and what
// was measured becomes a page:
//
//	gatescore gpu -backend cuda -o cuda.json
//	gatescore page -o page.md cuda.json wgpu.json
//
// So does what apr parity --contexts --json has compared (scripts/gpu/prove-contexts):
//
//	gatescore contexts -o page.md contexts.jsonl
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"

	_ "github.com/apr-engine/apr/backend/all"
	_ "github.com/apr-engine/apr/model/all"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, ".", os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gatescore:", err)
		os.Exit(1)
	}
}

// run measures what is named, both without a name, for the repository in root.
func run(ctx context.Context, root string, names []string) error {
	if len(names) > 0 && names[0] == "contexts" {
		return contextsCommand(names[1:])
	}
	if gpuNames(names) {
		return gpuCommand(ctx, root, names[0], names[1:])
	}
	steps := []struct {
		name    string
		measure func(context.Context, string, []subject) error
	}{{"calibration", writeCalibration}, {"score", writeScore}}
	if len(names) == 1 && names[0] == "pages" {
		return writePages(root)
	}
	for _, n := range names {
		if n != steps[0].name && n != steps[1].name {
			return fmt.Errorf("unknown measurement %q, want calibration, score, pages, gpu, page or contexts", n)
		}
	}
	dir, err := os.MkdirTemp("", "gatescore")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	subjects, err := open(root, dir, func(string) bool { return true })
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range steps {
		if len(names) == 0 || slices.Contains(names, s.name) {
			errs = append(errs, s.measure(ctx, root, subjects))
		}
	}
	for _, s := range subjects {
		errs = append(errs, s.model.Close())
	}
	return errors.Join(errs...)
}
