// Package shaker is a CoreDNS plugin that keeps dead addresses out of DNS answers.
package shaker
