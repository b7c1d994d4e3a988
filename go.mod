module github.com/apr-engine/apr

go 1.26
