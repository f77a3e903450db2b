package mcache

import "fmt"

// kubernetesLabels is the label set of series i: about 200 bytes of text in
// ten labels, a hundred series a pod, as a cluster's workloads expose them.
func kubernetesLabels(i int) []Label {
	pod, metric := i/100, i%100
	app := pod * 7919 % 300
	return []Label{
		{"__name__", fmt.Sprintf("http_server_requests_%02d_total", metric/12)},
		{"cluster", "eu-west-1-production"},
		{"code", fmt.Sprint(200 + metric%3*100)},
		{"container", fmt.Sprintf("app-%03d", app)},
		{"instance", fmt.Sprintf("10.%d.%d.%d:8080", pod>>12&255, pod>>6&63, pod&63)},
		{"job", fmt.Sprintf("monitoring/app-%03d", app)},
		{"le", fmt.Sprint(metric % 12)},
		{"namespace", fmt.Sprintf("team-%02d", app%50)},
		{"node", fmt.Sprintf("ip-10-0-%d-%d.internal", pod%16, pod%200)},
		{"pod", fmt.Sprintf("app-%03d-%08x-%05x", app, uint32(pod)*2654435761, pod)},
	}
}
