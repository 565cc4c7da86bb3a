package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// manifests returns all of ours, as one file.
func manifests(t *testing.T) string {
	t.Helper()
	names, err := filepath.Glob("../../deploy/kubernetes/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(content))
	}
	return strings.Join(all, "---\n")
}

// Each mistake is made in a copy of our manifests, and has to be found.
func TestMistakesAreFound(t *testing.T) {
	ours := manifests(t)
	for _, tt := range []struct{ name, old, new, want string }{
		{"none", "", "", ""},
		{"unknown field", "  replicas: 3", "  replica: 3", `unknown field "spec.replica"`},
		{"field of another case", "  replicas: 3", "  Replicas: 3", `unknown field "spec.Replicas"`},
		{"unknown field far below", "readOnlyRootFilesystem", "readOnlyRootFileSystem", "readOnlyRootFileSystem"},
		{"field given twice", "  replicas: 3", "  replicas: 3\n  replicas: 2", `key "replicas" already set`},
		{"wrong type", "  replicas: 3", "  replicas: three", "replicas"},
		{"unknown kind", "kind: Deployment", "kind: Deploymint", "Deploymint"},
		{"unknown version", "apiVersion: policy/v1", "apiVersion: policy/v1beta1", "policy/v1beta1"},
		{"unknown field of a custom resource", "  endpoints:", "  endpoint:", `unknown field "spec.endpoint"`},
		{"selector of the budget", "maxUnavailable: 1\n  selector:\n    matchLabels:\n      app.kubernetes.io/name: coredns-shaker",
			"maxUnavailable: 1\n  selector:\n    matchLabels:\n      app.kubernetes.io/name: coredns", "PodDisruptionBudget shaker/coredns: the selector"},
		{"selector of the deployment", "    matchLabels: *labels\n  template", "    matchLabels: {a: b}\n  template", "its selector differs"},
		{"selector of the service", "  selector: *labels", "  selector: {a: b}", `the selector "a=b" finds no pod`},
		{"port of the service", "targetPort: metrics", "targetPort: metric", `no port with the name "metric"`},
		{"protocol of the service", "targetPort: dns-tcp, protocol: TCP", "targetPort: dns-tcp, protocol: UDP", "protocol UDP"},
		{"port of a probe", "port: ready}", "port: redy}", `no port with the name "redy"`},
		{"port of the policy", "- {port: metrics, protocol: TCP}\n    # The replicas", "- {port: metrik, protocol: TCP}\n    # The replicas", `"metrik"`},
		{"port of the monitor", "- port: metrics", "- port: metrik", `"metrik"`},
		{"account", "serviceAccountName: coredns", "serviceAccountName: dns", "refers to ServiceAccount shaker/dns"},
		{"config map", "configMap:\n            name: coredns", "configMap:\n            name: dns", "refers to ConfigMap shaker/dns"},
		{"volume", "- name: config\n              mount", "- name: conf\n              mount", `mounts "conf"`},
		{"part of a config map", "mountPath: /etc/coredns", "mountPath: /etc/coredns/Corefile\n              subPath: Corefile", "because of subPath"},
		{"variable of the Corefile", "- name: POD_IP", "- name: PODIP", "key Corefile has {$POD_IP}, which container coredns lacks"},
		{"field of a variable", "fieldPath: status.podIP", "fieldPath: status.podIp", `"status.podIp", which no pod has`},
		{"key for everybody", "kind: ServiceAccount", "kind: Secret\nmetadata:\n  name: coredns-peers\n  namespace: shaker\nstringData: {peers.key: a}\n---\napiVersion: v1\nkind: ServiceAccount",
			"has a key that everybody can read here"},
		{"part of a secret", "mountPath: /etc/coredns-peers", "mountPath: /etc/coredns-peers/peers.key\n              subPath: peers.key", "because of subPath"},
		{"key that root reads", "        fsGroup: 65532\n", "", "Secret coredns-peers, which user 65532 cannot read"},
		{"peers that are not ready", "publishNotReadyAddresses: true", "publishNotReadyAddresses: false", "hides pods that are not ready"},
		{"replicas that the policy keeps apart", "- podSelector:\n            matchLabels:\n              app.kubernetes.io/name: coredns-shaker",
			"- podSelector:\n            matchLabels:\n              app.kubernetes.io/name: coredns", `the selector "app.kubernetes.io/name=coredns" finds no pod`},
		{"port to the replicas", "{port: peers, protocol: UDP}\n        - {port: peers-tcp, protocol: TCP}\n  egress", "{port: peer, protocol: UDP}\n        - {port: peers-tcp, protocol: TCP}\n  egress", `"peer"`},
		{"namespace", "kind: ConfigMap\nmetadata:\n  name: coredns\n  namespace: shaker", "kind: ConfigMap\nmetadata:\n  name: coredns\n  namespace: shake",
			"refers to Namespace /shake"},
		{"no namespace", "kind: ConfigMap\nmetadata:\n  name: coredns\n  namespace: shaker", "kind: ConfigMap\nmetadata:\n  name: coredns", "has no namespace"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := ours
			if tt.old != "" {
				if text = strings.Replace(ours, tt.old, tt.new, 1); text == ours {
					t.Fatalf("the manifests have no %q", tt.old)
				}
			}
			if got := problems(text); tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("found %q, want %q", got, tt.want)
			}
		})
	}
}

func TestObjectThatIsThereTwice(t *testing.T) {
	ours := manifests(t)
	if got := problems(ours + "---\n" + ours); !strings.Contains(got, "Deployment shaker/coredns: is there twice") {
		t.Errorf("found %q", got)
	}
}

func problems(manifests string) string {
	objects, err := decode([]byte(manifests))
	if err != nil {
		return err.Error()
	}
	return strings.Join(check(objects), "\n")
}
