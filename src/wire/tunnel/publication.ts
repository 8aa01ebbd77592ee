/** A message to publish. `expiry` and `responseTopic` are sent over MQTT 5 only. */
export interface Publication {
  readonly topic: string;
  readonly payload: Buffer;
  /** Default false. */
  readonly retain?: boolean;
  /** Message Expiry in seconds, after which the broker need not deliver the message. */
  readonly expiry?: number;
  readonly responseTopic?: string;
  /**
   * The message may go with QoS 0, because the sender notices its loss and repeats it. Default false: QoS 1.
   */
  readonly quick?: boolean;
  /** Nothing depends on the message. When the broker refuses it, that is no refusal to tell of. Default false. */
  readonly isTrial?: boolean;
  /** Publications of different flows take turns when they must wait. By default, the topic is the flow. */
  readonly flow?: string;
}

/** Identifiers of properties of MQTT 5 (section 2.2.2.2). */
const property = { messageExpiry: 0x02, responseTopic: 0x08 } as const;

const bytesOfLength = (length: number): number =>
  length < 0x80 ? 1 : length < 0x4000 ? 2 : length < 0x20_0000 ? 3 : 4;

const bytesOfProperties = ({ expiry, responseTopic }: Publication): number =>
  (expiry === undefined ? 0 : 5) + (responseTopic === undefined ? 0 : 3 + Buffer.byteLength(responseTopic));

function bodyBytes(publication: Publication, version: 4 | 5, qos: 0 | 1): number {
  const { topic, payload } = publication;
  const properties = version === 5 ? bytesOfProperties(publication) : 0;
  return (
    2 +
    Buffer.byteLength(topic) +
    2 * qos +
    (version === 5 ? bytesOfLength(properties) : 0) +
    properties +
    payload.length
  );
}

/** Size of the PUBLISH packet in bytes, as a broker's Maximum Packet Size counts it (MQTT 5, section 3.1.2.11.4). */
export function packetBytes(publication: Publication, version: 4 | 5): number {
  const body = bodyBytes(publication, version, 1);
  return 1 + bytesOfLength(body) + body;
}

/**
 * The PUBLISH packet with QoS 0 (MQTT 5, section 3.3) in one piece. mqtt.js writes a packet in up to ten pieces, which
 * costs more than all else that it does for a message without acknowledgement.
 */
export function packetOf(publication: Publication, version: 4 | 5): Buffer {
  const { topic, payload, expiry, responseTopic, retain = false } = publication;
  const body = bodyBytes(publication, version, 0);
  const packet = Buffer.allocUnsafe(1 + bytesOfLength(body) + body);
  let at = packet.writeUInt8(0x30 | (retain ? 1 : 0));
  const length = (value: number) => {
    for (let rest = value; ; rest >>>= 7) {
      at = packet.writeUInt8(rest < 0x80 ? rest : (rest & 0x7f) | 0x80, at);
      if (rest < 0x80) return;
    }
  };
  const text = (value: string) => {
    at = packet.writeUInt16BE(Buffer.byteLength(value), at);
    at += packet.write(value, at);
  };
  length(body);
  text(topic);
  if (version === 5) {
    length(bytesOfProperties(publication));
    if (expiry !== undefined) {
      at = packet.writeUInt8(property.messageExpiry, at);
      at = packet.writeUInt32BE(expiry, at);
    }
    if (responseTopic !== undefined) {
      at = packet.writeUInt8(property.responseTopic, at);
      text(responseTopic);
    }
  }
  packet.set(payload, at);
  return packet;
}
