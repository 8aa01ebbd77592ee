/**
 * The MQTT topics of one gateway (docs/bindings.md). All begin with `dm/{gateway}/`, so a broker can confine each gateway
 * to its own topics by one rule: `pattern readwrite dm/%u/#`.
 */
export const gatewayTopics = (gateway: string) => ({
  state: `dm/${gateway}/state`,
  up: `dm/${gateway}/up`,
  upRoute: (route: string) => `dm/${gateway}/up/${route}`,
  down: `dm/${gateway}/down`,
  /** Certificate of the board that has the name, in DER, retained. It is there when a board was replaced. */
  holder: `dm/${gateway}/holder`,
  /** Nobody subscribes to it: `~` cannot be a route. See `Carrier`. */
  none: `dm/${gateway}/up/~`,
});

/**
 * Organizational unit in a certificate on the topic `holder`, by which a head-end tells a board that it has no account any
 * more. Nobody has the key of that certificate.
 * @param key ID of the key of the board
 */
export const goneUnit = (key: string): string => `gone-${key}`;

/** A topic to which nobody subscribes, for a head-end: `~` cannot be a gateway. See `Carrier`. */
export const headendCarrier = 'dm/~';

/** Topics of no gateway, by which a head-end checks that it may publish and read. See `OwnEcho`. */
export const checkTopics = gatewayTopics('~');

/**
 * Whether the text can be one level of a topic: 1 to 64 letters, digits, `.`, `_`, `:` and `-`. So it has no separators,
 * wildcards or control characters.
 */
export const isTopicLevel = (text: string): boolean => /^[A-Za-z0-9._:-]{1,64}$/.test(text);

/** The parts of a topic to which a gateway publishes. */
export interface UpTopic {
  readonly gateway: string;
  readonly what: 'state' | 'up';
  readonly route?: string;
}

/** Reads a topic to which a gateway publishes. Returns `undefined` for any other topic. */
export function parseUpTopic(topic: string): UpTopic | undefined {
  const [root, gateway, what, route, ...more] = topic.split('/');
  if (root !== 'dm' || gateway === undefined || !isTopicLevel(gateway) || more.length > 0) return undefined;
  if (what === 'state' && route === undefined) return { gateway, what };
  if (what === 'up') return { gateway, what, ...(route !== undefined && { route }) };
  return undefined;
}

/** Topic filter of the requests of gateways to be enrolled. */
export const enrolmentRequests = 'enrol/+/+/up';

/**
 * The topics by which a gateway asks for its certificate (docs/bindings.md, Enrolment). A broker confines each client to its
 * own: `pattern write enrol/%u/%c/up` and `pattern read enrol/%u/%c/down`.
 * @param claim name of the claim certificate, or user name at the broker
 * @param client client ID, which is the ID of the gateway's key
 */
export const enrolmentTopics = (claim: string, client: string) => ({
  up: `enrol/${claim}/${client}/up`,
  down: `enrol/${claim}/${client}/down`,
});

/** Reads a topic on which a gateway asks to be enrolled. Returns `undefined` for any other topic. */
export function parseEnrolmentTopic(
  topic: string,
): { readonly claim: string; readonly client: string } | undefined {
  const [root, claim, client, what, ...more] = topic.split('/');
  if (root !== 'enrol' || what !== 'up' || more.length > 0 || !claim || !client) return undefined;
  return isTopicLevel(claim) && isTopicLevel(client) ? { claim, client } : undefined;
}
