/** A model folder of Hugging Face, read whole: config, weights, tokenizer, chat template, picture processor, generation defaults. */

import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { loadImageProcessor, loadWeights, readConfig, type Weights } from '../checkpoint/load.ts'
import { isOriginalConfig } from '../checkpoint/original.ts'
import { type ChatTemplate, chatTemplateIn, loadChatTemplate } from '../conversation/chat-template.ts'
import { readSentencePiece } from '../conversation/sentencepiece.ts'
import { findTemplate, type Template } from '../conversation/templates.ts'
import { loadTokenizer, type Tokenizer } from '../conversation/tokenizer.ts'
import { type ImageProcessorConfig, readImageProcessorConfig } from '../image/processor-config.ts'
import type { Size } from '../image/tiles.ts'
import type { LlavaConfig } from '../model/config.ts'
import { tellWrongFields } from '../wrong-fields.ts'
import { checkSamplingOptions, type SamplingOptions } from './sampling.ts'

export type ModelFolder = {
  readonly config: LlavaConfig
  readonly weights: Weights
  readonly tokenizer: Tokenizer
  readonly template: Template | ChatTemplate
  readonly imageProcessor: ImageProcessorConfig
  /** Tokens and texts that end an answer. */
  readonly stopTokens: readonly number[]
  readonly stop: readonly string[]
  readonly defaults: SamplingOptions & { readonly maxTokens?: number }
}

/**
 * Reads config.json, model.safetensors (or its shards), tokenizer.json and preprocessor_config.json, and where they are
 * there tokenizer_config.json, chat_template.jinja and generation_config.json.
 *
 * The chat template is the first of: the one that `llava_template` of tokenizer_config.json names, chat_template.jinja,
 * chat_template.json, `chat_template` of tokenizer_config.json, what models of this kind usually have. Original releases of LLaVA have
 * tokenizer.model in place of tokenizer.json, and no preprocessor_config.json.
 *
 * @throws Error, SyntaxError, TypeError or RangeError, always one sentence that names the folder and the file
 */
export async function readModelFolder(
  folder: string,
  { signal }: { signal?: AbortSignal | undefined } = {},
): Promise<ModelFolder> {
  const parts = await readModelParts(folder, { signal })
  const weights = await attempt(folder, 'its weights', () => loadWeights(folder, parts.config))
  return { ...parts, weights }
}

/** All of a model folder but its weights, which may be large. Errors: those of `readModelFolder`. */
export async function readModelParts(
  folder: string,
  { signal }: { signal?: AbortSignal | undefined } = {},
): Promise<Omit<ModelFolder, 'weights'>> {
  await expectFolder(folder)
  signal?.throwIfAborted()
  const { config, original } = await readPart(folder, 'config.json', async (json) => ({
    config: await readConfig(json, { folder }),
    original: isOriginalConfig(json),
  }))
  const { tokenizer, tokenizerConfig } = await readTokenizer(folder)
  expectVocabulary(folder, { config, tokenizer })
  expectImageToken(folder, { config, tokenizer })
  const imageProcessor = original
    ? await attempt(folder, 'config.json', () => loadImageProcessor(folder))
    : await readPart(folder, 'preprocessor_config.json', readImageProcessorConfig)
  expectSameTiles(folder, { config, imageProcessor })
  const template = await readTemplate(folder, { config, tokenizer, tokenizerConfig })
  const generation = await readOptional(folder, 'generation_config.json', readGenerationConfig)
  signal?.throwIfAborted()
  return {
    config,
    tokenizer,
    template,
    imageProcessor,
    ...stopRules({ config, tokenizer, template, extra: generation?.eosTokens ?? [] }),
    defaults: generation?.defaults ?? {},
  }
}

/** @throws Error when there is no folder of that name */
export async function expectFolder(folder: string): Promise<void> {
  const status = await stat(folder).catch(() => undefined)
  if (status?.isDirectory()) return
  const file = folder.endsWith('.gguf') ? "a GGUF file of llama.cpp's" : 'a file'
  const found = status === undefined ? 'there is no such folder' : `it is ${file}, expected a folder`
  throw new Error(`Cannot load the model ${folder}: ${found}`)
}

/** The tokenizer of a model folder, and its tokenizer_config.json as it is there. */
export async function readTokenizer(folder: string): Promise<{ tokenizer: Tokenizer; tokenizerConfig: unknown }> {
  const tokenizerConfig = await readOptional(folder, 'tokenizer_config.json', (json) => json)
  const load = (tokenizerJson: unknown) =>
    loadTokenizer({ tokenizerJson, ...(tokenizerConfig !== undefined && { tokenizerConfig }) })
  const tokenizer = await readOptional(folder, 'tokenizer.json', load)
  if (tokenizer !== undefined) return { tokenizer, tokenizerConfig }
  const model = await readFile(join(folder, 'tokenizer.model')).catch(() => undefined)
  if (model === undefined) throw new Error(`Cannot load the model ${folder}: tokenizer.json is missing`)
  return {
    tokenizer: await attempt(folder, 'tokenizer.model', () => load(readSentencePiece(model, { tokenizerConfig }))),
    tokenizerConfig,
  }
}

const token = z.int().min(0)
const generationSchema = z.looseObject({
  eos_token_id: z.union([token, z.array(token)]).nullish(),
  max_new_tokens: z.int().min(1).nullish(),
  do_sample: z.boolean().nullish(),
  temperature: z.number().nullish(),
  top_k: z.int().min(0).nullish(),
  top_p: z.number().nullish(),
  min_p: z.number().nullish(),
  repetition_penalty: z.number().nullish(),
})

/** As in transformers, an answer is only drawn when `do_sample` is true; otherwise it is greedy whatever the temperature. */
function readGenerationConfig(json: unknown): { eosTokens: number[]; defaults: ModelFolder['defaults'] } {
  const parsed = generationSchema.safeParse(json)
  if (!parsed.success) {
    throw new TypeError(tellWrongFields(parsed.error, json))
  }
  const file = parsed.data
  const given = <T>(value: T | null | undefined): T | undefined => value ?? undefined
  const drawn: SamplingOptions = {
    temperature: file.temperature ?? 1,
    topK: file.top_k === 0 ? undefined : given(file.top_k),
    topP: given(file.top_p),
    minP: given(file.min_p),
  }
  const defaults = {
    ...(file.max_new_tokens && { maxTokens: file.max_new_tokens }),
    ...(file.do_sample === true && drawn),
    repetitionPenalty: given(file.repetition_penalty),
  }
  checkSamplingOptions(defaults)
  return { eosTokens: [file.eos_token_id ?? []].flat(), defaults }
}

/** Where a model's template is written: by name in tokenizer_config.json, as Jinja in one of three files, or nowhere. */
export type TemplateSource =
  | { readonly name: string; readonly file: 'tokenizer_config.json' | undefined }
  | { readonly name: undefined; readonly file: 'chat_template.jinja' | 'tokenizer_config.json' | 'chat_template.json' }

type TemplateParts = Pick<ModelFolder, 'config' | 'tokenizer'> & { readonly tokenizerConfig: unknown }

const namedTemplate = z.looseObject({ llava_template: z.string().nullish(), chat_template: z.unknown().optional() })

/** The first of the places that `readModelFolder` lists. */
export async function findTemplateSource(
  folder: string,
  { config, tokenizer, tokenizerConfig }: TemplateParts,
): Promise<TemplateSource> {
  const named = await attempt(folder, 'tokenizer_config.json', async () => {
    const parsed = namedTemplate.safeParse(tokenizerConfig ?? {})
    if (!parsed.success) throw new TypeError(tellWrongFields(parsed.error, tokenizerConfig))
    return parsed.data
  })
  // Models trained here name their template: its ids are exactly those that training saw. The Jinja form is for other programs.
  if (typeof named.llava_template === 'string') return { name: named.llava_template, file: 'tokenizer_config.json' }
  if ((await readText(folder, 'chat_template.jinja')) !== undefined) {
    return { name: undefined, file: 'chat_template.jinja' }
  }
  // A tokenizer often brings the template of its language model, which knows nothing of pictures.
  if ((await readText(folder, 'chat_template.json')) !== undefined) {
    return { name: undefined, file: 'chat_template.json' }
  }
  if (named.chat_template) return { name: undefined, file: 'tokenizer_config.json' }
  return { name: usualTemplate({ config, tokenizer }), file: undefined }
}

/** What the published models were trained with, where the folder does not say. */
function usualTemplate({ config, tokenizer }: Pick<ModelFolder, 'config' | 'tokenizer'>): string {
  if (tokenizer.ids.has('<|im_start|>')) return 'chatml_direct'
  return config.language.kind === 'mistral' ? 'mistral_instruct' : 'vicuna_v1'
}

async function readTemplate(folder: string, parts: TemplateParts): Promise<Template | ChatTemplate> {
  const { config, tokenizer, tokenizerConfig } = parts
  const pictureToken = tokenizer.pieces[config.imageToken] ?? '<image>'
  const { name, file } = await findTemplateSource(folder, parts)
  if (name !== undefined) return attempt(folder, file ?? 'config.json', async () => findTemplate(name))
  if (file === 'chat_template.jinja') {
    const source = (await readText(folder, file)) ?? ''
    return attempt(folder, file, () => loadChatTemplate({ source, config: tokenizerConfig, pictureToken }))
  }
  if (file === 'tokenizer_config.json') {
    return attempt(folder, file, () => loadChatTemplate({ config: tokenizerConfig, pictureToken }))
  }
  return readPart(folder, file, (json) =>
    loadChatTemplate({ source: chatTemplateIn(json), config: tokenizerConfig, pictureToken }),
  )
}

/** What ends an answer: tokens and texts. */
export function stopRules({
  config,
  tokenizer,
  template,
  extra,
}: Pick<ModelFolder, 'config' | 'tokenizer' | 'template'> & { extra: readonly number[] }): Pick<
  ModelFolder,
  'stopTokens' | 'stop'
> {
  const end = template.style === 'jinja' ? undefined : template.end
  const ids = [...config.language.eosTokens, ...extra, tokenizer.eosId]
  if (end !== undefined && 'token' in end) ids.push(tokenizer.ids.get(end.token))
  const stopTokens = [...new Set(ids.filter((id) => id !== undefined))]
  return { stopTokens, stop: end !== undefined && 'text' in end ? [end.text] : [] }
}

function expectVocabulary(folder: string, { config, tokenizer }: Pick<ModelFolder, 'config' | 'tokenizer'>): void {
  const { vocabulary } = config.language
  if (tokenizer.vocabularySize > vocabulary) {
    throw new RangeError(
      `Cannot load the model ${folder}: tokenizer.json has ids up to ${tokenizer.vocabularySize - 1}, expected at most ${vocabulary - 1} as in config.json`,
    )
  }
}

/** In the original layout a picture is no token, everywhere else it is one that no text can become. */
function expectImageToken(folder: string, { config, tokenizer }: Pick<ModelFolder, 'config' | 'tokenizer'>): void {
  const { imageToken } = config
  if (imageToken < 0 || [...tokenizer.addedTokens.values()].some(({ id }) => id === imageToken)) return
  throw new RangeError(
    `Cannot load the model ${folder}: tokenizer.json has no added token ${imageToken}, expected the image token that config.json names`,
  )
}

/** A picture that is cut in one way and put together in another would be seen wrong without a word. */
function expectSameTiles(folder: string, { config, imageProcessor }: Pick<ModelFolder, 'config' | 'imageProcessor'>) {
  const written = (sizes: readonly Size[] | undefined) =>
    sizes?.map(({ width, height }) => `${width}x${height}`).join(' ') ?? 'none'
  const [wanted, cut] = [written(config.tiles?.resolutions), written(imageProcessor.tiles?.resolutions)]
  if (wanted === cut) return
  throw new RangeError(
    `Cannot load the model ${folder}: preprocessor_config.json cuts tiles for the resolutions ${shortened(cut)}, expected ${shortened(wanted)} as in config.json`,
  )
}

function shortened(text: string): string {
  return text.length > 80 ? `${text.slice(0, 80)}…` : text
}

/** A JSON file of a model folder, read by `read`. Errors name the folder and the file. */
export async function readPart<T>(folder: string, file: string, read: (json: unknown) => T | Promise<T>): Promise<T> {
  const text = await readText(folder, file)
  if (text === undefined) throw new Error(`Cannot load the model ${folder}: ${file} is missing`)
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    const reason = messageOf(error).split('\n', 1)[0]
    throw new SyntaxError(`Cannot load the model ${folder}: ${file} is not valid JSON (${reason})`, { cause: error })
  }
  return attempt(folder, file, () => read(json))
}

/** `readPart` of a file that may be missing. */
export async function readOptional<T>(
  folder: string,
  file: string,
  read: (json: unknown) => T,
): Promise<T | undefined> {
  return (await readText(folder, file)) === undefined ? undefined : readPart(folder, file, read)
}

async function readText(folder: string, file: string): Promise<string | undefined> {
  try {
    return await readFile(join(folder, file), 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw new Error(`Cannot load the model ${folder}: ${file} cannot be read (${messageOf(error)})`, { cause: error })
  }
}

/** Runs `read`; its errors name the folder and what in it was read. */
export async function attempt<T>(folder: string, file: string, read: () => T | Promise<T>): Promise<T> {
  try {
    return await read()
  } catch (error) {
    return explain(folder, { file, error })
  }
}

/** The same error with the folder and the file in its sentence, of the same class. */
export function explain(folder: string, { file, error }: { file: string; error: unknown }): never {
  const message = messageOf(error)
  if (message.startsWith('Cannot load the model ')) throw error
  const sentence = `Cannot load the model ${folder}: ${file}: ${message.replace(/^Cannot /, 'cannot ')}`
  const known = [SyntaxError, RangeError, TypeError].find((kind) => error instanceof kind) ?? Error
  throw new known(sentence, { cause: error })
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
