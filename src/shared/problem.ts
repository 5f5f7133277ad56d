/** An expected failure, as plain data: a code, and what its text needs. */
export type Problem =
  | { code: 'bad-subnet'; text: string }
  | { code: 'bad-name'; name: string }
  | { code: 'bad-usage'; detail: string }
  | { code: 'kubeconfig'; detail: string }
  | { code: 'unreachable'; server: string; detail: string }
  | { code: 'unauthorised'; server: string; detail: string }
  | { code: 'forbidden'; missing: readonly string[] }
  | { code: 'helper-missing'; detail: string }
  | { code: 'helper-failed'; step: string; detail: string }
  | { code: 'no-subnets' }
  | { code: 'dns-check'; detail: string }
  | { code: 'dial-check'; detail: string }
  | { code: 'engine-missing' }
  | { code: 'already-connected'; context: string }
  | { code: 'bug'; detail: string }

/** Carries a Problem through code that throws; `cause` is for the log. */
export class AppError extends Error {
  readonly problem: Problem
  constructor(problem: Problem, options?: { cause?: unknown }) {
    super(textFor(problem).title, options)
    this.problem = problem
  }
}

/** @returns the Problem that `error` carries; anything else is a bug, and is shown as one. */
export function problemOf(error: unknown): Problem {
  if (error instanceof AppError) return error.problem
  return { code: 'bug', detail: error instanceof Error ? error.message : String(error) }
}

/** The minimal Role, for whoever may grant it (KEP-4006: `create` is asked for from Kubernetes 1.35 on). */
export const minimalRole = `apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: tideway, namespace: NAMESPACE }
rules:
- { apiGroups: [""], resources: [services, pods], verbs: [get, list, watch] }
- { apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch] }
- { apiGroups: [""], resources: [pods/portforward], verbs: [get, create] }`

/** Words for a problem: what happened and why, and what to do next. */
export function textFor(problem: Problem): { title: string; hint: string } {
  switch (problem.code) {
    case 'bad-subnet':
      return {
        title: `“${problem.text}” is not a subnet`,
        hint: 'Write it as 10.0.0.0/8 or fd00::/64.',
      }
    case 'bad-name':
      return {
        title: `“${problem.name}” is not a DNS name`,
        hint: 'Labels have 1 to 63 bytes, a name at most 253.',
      }
    case 'bad-usage':
      return { title: problem.detail, hint: 'See tideway --help.' }
    case 'kubeconfig':
      return {
        title: `The kubeconfig cannot be used: ${problem.detail}`,
        hint: 'Check KUBECONFIG, and that `kubectl config get-contexts` lists the context.',
      }
    case 'unreachable':
      return {
        title: `The API server ${problem.server} does not answer: ${problem.detail}`,
        hint: 'Check the network, the VPN and the proxy; `kubectl version` should answer.',
      }
    case 'unauthorised':
      return {
        title: `The API server ${problem.server} refuses your credentials: ${problem.detail}`,
        hint: 'Sign in to the cluster again, then connect again.',
      }
    case 'forbidden':
      return {
        title: `Your account may not: ${problem.missing.join(', ')}`,
        hint: `Ask the cluster's administrator for this Role:\n${minimalRole}`,
      }
    case 'helper-missing':
      return {
        title: `The helper is not running: ${problem.detail}`,
        hint: 'Start it with: sudo tideway helper run',
      }
    case 'helper-failed':
      return {
        title: `The helper could not ${problem.step}: ${problem.detail}`,
        hint: 'Run: sudo tideway helper recover, then connect again.',
      }
    case 'no-subnets':
      return {
        title: 'The cluster shows no Service and no pod that could be reached',
        hint: 'Check --mapped-namespaces, or give subnets with --also-proxy.',
      }
    case 'dns-check':
      return {
        title: `Connected with a problem: cluster names do not resolve (${problem.detail})`,
        hint: 'Another resolver may be in the way; addresses work. See tideway status.',
      }
    case 'dial-check':
      return {
        title: `Connected with a problem: no port-forward could be opened (${problem.detail})`,
        hint: 'Check that `kubectl port-forward` works with your account.',
      }
    case 'engine-missing':
      return { title: 'Tideway is not running', hint: 'Start it with: tideway connect' }
    case 'already-connected':
      return { title: `Already connected to ${problem.context}`, hint: 'Run tideway quit first.' }
    case 'bug':
      return {
        title: `Something unexpected happened: ${problem.detail}`,
        hint: 'Please report it with the output of tideway logs.',
      }
  }
}
