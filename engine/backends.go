package engine

import "github.com/apr-engine/apr/backend"

// Backends lists the names that Options.Backend takes in this build.
func Backends() []string { return append([]string{"auto"}, backend.Names()...) }
