/** The MQTT topics of one gateway (docs/bindings.md). A broker confines it by one rule, `pattern readwrite dm/%u/#`. */
export const gatewayTopics = (gateway: string) => ({
  state: `dm/${gateway}/state`,
  up: `dm/${gateway}/up`,
  upRoute: (route: string) => `dm/${gateway}/up/${route}`,
  down: `dm/${gateway}/down`,
});

/** What is part of a topic: no separators, wildcards or control characters. */
export const isTopicLevel = (text: string): boolean => /^[A-Za-z0-9._:-]{1,64}$/.test(text);

export interface UpTopic {
  readonly gateway: string;
  readonly what: 'state' | 'up';
  readonly route?: string;
}

/** Reads a topic that a gateway publishes to. */
export function parseUpTopic(topic: string): UpTopic | undefined {
  const [root, gateway, what, route, ...more] = topic.split('/');
  if (root !== 'dm' || !gateway || more.length > 0) return undefined;
  if (what === 'state' && route === undefined) return { gateway, what };
  if (what === 'up') return { gateway, what, ...(route !== undefined && { route }) };
  return undefined;
}
