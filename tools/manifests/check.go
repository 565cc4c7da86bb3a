package main

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// check returns what does not fit together.
func check(objects []runtime.Object) (problems []string) {
	s := set{defined: make(map[string]bool), configMaps: make(map[string]*core.ConfigMap)}
	for _, o := range objects {
		s.add(o)
	}
	for _, o := range objects {
		s.check(o)
	}
	return s.problems
}

type set struct {
	defined    map[string]bool // "Kind namespace/name"
	configMaps map[string]*core.ConfigMap
	pods       []pod
	services   []*core.Service
	problems   []string
}

// pod is what is made from a template.
type pod struct {
	namespace string
	labels    labels.Set
	ports     map[string]core.Protocol
}

func key(kind, namespace, name string) string { return fmt.Sprintf("%s %s/%s", kind, namespace, name) }

func name(o runtime.Object) string {
	m := o.(meta.Object)
	return key(o.GetObjectKind().GroupVersionKind().Kind, m.GetNamespace(), m.GetName())
}

func (s *set) add(o runtime.Object) {
	if s.defined[name(o)] {
		s.problem(o, "is there twice")
	}
	s.defined[name(o)] = true
	switch o := o.(type) {
	case *apps.Deployment:
		p := pod{namespace: o.Namespace, labels: o.Spec.Template.Labels, ports: make(map[string]core.Protocol)}
		for _, c := range o.Spec.Template.Spec.Containers {
			for _, port := range c.Ports {
				p.ports[port.Name] = port.Protocol
			}
		}
		s.pods = append(s.pods, p)
	case *core.Service:
		s.services = append(s.services, o)
	case *core.ConfigMap:
		s.configMaps[name(o)] = o
	}
}

func (s *set) problem(o runtime.Object, format string, args ...any) {
	s.problems = append(s.problems, name(o)+": "+fmt.Sprintf(format, args...))
}

func (s *set) check(o runtime.Object) {
	if namespace := o.(meta.Object).GetNamespace(); namespace != "" {
		s.need(o, "Namespace", "", namespace)
	} else if _, ok := o.(*core.Namespace); !ok {
		s.problem(o, "has no namespace")
	}
	switch o := o.(type) {
	case *core.Namespace, *core.ServiceAccount, *core.ConfigMap:
	case *core.Secret:
		s.problem(o, "has a key that everybody can read here")
	case *apps.Deployment:
		s.checkDeployment(o)
	case *core.Service:
		pods := s.selected(o, meta.SetAsLabelSelector(o.Spec.Selector))
		for _, port := range o.Spec.Ports {
			s.checkPort(o, pods, port.TargetPort, port.Protocol)
		}
		if o.Spec.ClusterIP == core.ClusterIPNone && !o.Spec.PublishNotReadyAddresses {
			s.problem(o, "hides pods that are not ready, which would never find the others")
		}
	case *policy.PodDisruptionBudget:
		s.selected(o, o.Spec.Selector)
	case *networking.NetworkPolicy:
		s.checkPolicy(o)
	case *monitoring.ServiceMonitor:
		s.checkMonitor(o)
	default:
		s.problem(o, "is of a kind that is not checked")
	}
}

// need notes that an object refers to another one.
func (s *set) need(o runtime.Object, kind, namespace, name string) {
	if !s.defined[key(kind, namespace, name)] {
		s.problem(o, "refers to %s, which no document defines", key(kind, namespace, name))
	}
}

func (s *set) checkDeployment(d *apps.Deployment) {
	template := d.Spec.Template
	if d.Spec.Selector == nil || !reflect.DeepEqual(d.Spec.Selector.MatchLabels, template.Labels) {
		s.problem(d, "its selector differs from the labels %v of its pods", template.Labels)
	}
	s.need(d, "ServiceAccount", d.Namespace, template.Spec.ServiceAccountName)
	volumes := make(map[string]core.Volume)
	for _, v := range template.Spec.Volumes {
		volumes[v.Name] = v
		if v.ConfigMap != nil {
			s.need(d, "ConfigMap", d.Namespace, v.ConfigMap.Name)
		}
		if v.Secret != nil {
			s.checkMode(d, v.Secret)
		}
	}
	for _, c := range template.Spec.Containers {
		s.checkVolumes(d, c, volumes)
		s.checkVariables(d, c, volumes)
		for _, probe := range []*core.Probe{c.LivenessProbe, c.ReadinessProbe} {
			if probe == nil || probe.HTTPGet == nil {
				s.problem(d, "container %s lacks a probe over HTTP", c.Name)
				continue
			}
			s.checkPort(d, s.selected(d, d.Spec.Selector), probe.HTTPGet.Port, core.ProtocolTCP)
		}
	}
}

// checkMode tells whether the user of the pods can read a Secret, which the kubelet writes as root.
func (s *set) checkMode(d *apps.Deployment, v *core.SecretVolumeSource) {
	const group, others = 0o040, 0o004
	c := d.Spec.Template.Spec.SecurityContext
	if mode := v.DefaultMode; c != nil && c.RunAsUser != nil && *c.RunAsUser != 0 && mode != nil && *mode&others == 0 &&
		(c.FSGroup == nil || *mode&group == 0) {
		s.problem(d, "has a volume of Secret %s, which user %d cannot read", v.SecretName, *c.RunAsUser)
	}
}

func (s *set) checkVolumes(d *apps.Deployment, c core.Container, volumes map[string]core.Volume) {
	for _, m := range c.VolumeMounts {
		v, ok := volumes[m.Name]
		if !ok {
			s.problem(d, "container %s mounts %q, which is no volume", c.Name, m.Name)
		}
		if m.SubPath == "" {
			continue
		}
		if v.ConfigMap != nil {
			s.problem(d, "container %s never sees a change of ConfigMap %s, because of subPath", c.Name, v.ConfigMap.Name)
		}
		if v.Secret != nil {
			s.problem(d, "container %s never sees a change of Secret %s, because of subPath", c.Name, v.Secret.SecretName)
		}
	}
}

var (
	// variable is one of the environment in a Corefile.
	variable = regexp.MustCompile(`\{\$(\w+)\}`)
	// podFields are what the environment can have of a pod, besides single labels and annotations.
	podFields = []string{"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
		"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"}
)

// checkVariables tells whether what a ConfigMap takes from the environment is there.
func (s *set) checkVariables(d *apps.Deployment, c core.Container, volumes map[string]core.Volume) {
	has := make(map[string]bool)
	for _, e := range c.Env {
		has[e.Name] = true
		if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil && !slices.Contains(podFields, e.ValueFrom.FieldRef.FieldPath) {
			s.problem(d, "the variable %s is %q, which no pod has", e.Name, e.ValueFrom.FieldRef.FieldPath)
		}
	}
	for _, m := range c.VolumeMounts {
		v := volumes[m.Name]
		if v.ConfigMap == nil {
			continue
		}
		config := s.configMaps[key("ConfigMap", d.Namespace, v.ConfigMap.Name)]
		if config == nil {
			continue // told already
		}
		for _, file := range slices.Sorted(maps.Keys(config.Data)) {
			for _, match := range variable.FindAllStringSubmatch(config.Data[file], -1) {
				if !has[match[1]] {
					s.problem(config, "key %s has %s, which container %s lacks", file, match[0], c.Name)
				}
			}
		}
	}
}

// checkPolicy tells whether the ports of the pods, and of those in the same namespace that they may talk to, have the names
// that they are called by.
func (s *set) checkPolicy(n *networking.NetworkPolicy) {
	pods := s.selected(n, &n.Spec.PodSelector)
	for _, rule := range n.Spec.Ingress {
		s.ours(n, rule.From)
		for _, port := range rule.Ports {
			s.checkPort(n, pods, *port.Port, *port.Protocol)
		}
	}
	for _, rule := range n.Spec.Egress {
		others := s.ours(n, rule.To)
		for _, port := range rule.Ports {
			if port.Port.Type == intstr.String {
				s.checkPort(n, others, *port.Port, *port.Protocol)
			}
		}
	}
}

// ours returns the pods of the same namespace among peers of a policy; each that is of this namespace has to find one.
func (s *set) ours(n *networking.NetworkPolicy, peers []networking.NetworkPolicyPeer) (pods []pod) {
	for _, p := range peers {
		if p.PodSelector != nil && p.NamespaceSelector == nil {
			pods = append(pods, s.selected(n, p.PodSelector)...)
		}
	}
	return pods
}

// selected returns the pods that a selector finds; there has to be one.
func (s *set) selected(o runtime.Object, selector *meta.LabelSelector) (pods []pod) {
	l, err := meta.LabelSelectorAsSelector(selector)
	if err != nil {
		s.problem(o, "%v", err)
		return nil
	}
	for _, p := range s.pods {
		if p.namespace == o.(meta.Object).GetNamespace() && l.Matches(p.labels) {
			pods = append(pods, p)
		}
	}
	if len(pods) == 0 {
		s.problem(o, "the selector %q finds no pod", l)
	}
	return pods
}

// checkPort tells whether every pod has a port of that name.
func (s *set) checkPort(o runtime.Object, pods []pod, port intstr.IntOrString, protocol core.Protocol) {
	for _, p := range pods {
		if p.ports[port.StrVal] != protocol {
			s.problem(o, "the pods have no port with the name %q and protocol %s", port.String(), protocol)
		}
	}
}

func (s *set) checkMonitor(m *monitoring.ServiceMonitor) {
	l, err := meta.LabelSelectorAsSelector(&m.Spec.Selector)
	if err != nil {
		s.problem(m, "%v", err)
		return
	}
	ports := make(map[string]bool)
	for _, service := range s.services {
		if service.Namespace == m.Namespace && l.Matches(labels.Set(service.Labels)) {
			for _, port := range service.Spec.Ports {
				ports[port.Name] = true
			}
		}
	}
	for _, e := range m.Spec.Endpoints {
		if !ports[e.Port] {
			s.problem(m, "no service that it selects has a port with the name %q", e.Port)
		}
	}
}
