import { hash } from 'node:crypto';

/**
 * Name of a node, or of a file, for a device, group or image: the first 16 hexadecimal digits of the SHA-256 of its
 * identifier. An identifier may contain any character, and every party that knows it can compute the name.
 */
export const hashedName = (identifier: string): string => hash('sha256', identifier, 'hex').slice(0, 16);
