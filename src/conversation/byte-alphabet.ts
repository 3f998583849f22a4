/** The byte alphabet of GPT-2: one printable character for each of the 256 byte values, used by byte-level BPE. */

/** Character of each byte: printable Latin-1 stands for itself, every other byte for a character from U+0100 on. */
export const characterOfByte: readonly string[] = buildAlphabet()

const byteOfCharacter: ReadonlyMap<string, number> = new Map(
  characterOfByte.map((character, byte) => [character, byte]),
)

/** Bytes of a byte-level piece; a character outside the alphabet gives its own UTF-8 bytes. */
export function bytesOfPiece(piece: string): Uint8Array {
  const bytes: number[] = []
  for (const character of piece) {
    const byte = byteOfCharacter.get(character)
    if (byte === undefined) bytes.push(...new TextEncoder().encode(character))
    else bytes.push(byte)
  }
  return Uint8Array.from(bytes)
}

function buildAlphabet(): string[] {
  let next = 0x100
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad)
    return String.fromCharCode(printable ? byte : next++)
  })
}
