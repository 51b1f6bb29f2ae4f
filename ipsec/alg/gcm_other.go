//go:build !amd64

package alg

var newGCM = newPlainGCM
