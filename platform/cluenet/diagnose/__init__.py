"""`cluenet diagnose RUN`: where a model looks, what its layers say, and where clues lie between question and answer.

    <run>/diagnostics/
        attention.png .svg    frames of a few questions with the attention over them, right and wrong answers
        looking.png .svg      attention inside the labelled boxes, and the pointing score, right against wrong
        lens.png .svg         CCR@k by layer, and the words that the layers of one clip say inside and outside a clue's box
        space.png .svg        questions, options, clues and visual tokens by PCA and t-SNE, and how near they are
        diagnostics.json      the numbers of all of these; written last

diagnostics.json, the same bytes for the same model, test set, number of questions and seed:

    format run set model_address seed
    questions   {asked, right, wrong, unknown}
    files       names of the figures that could be made
    notes       {part: why it, or something of it, is missing}
    attention   {of, layer, scores, looks, examples} or null
        of          clue: every clue that the model states has its attention; answer: the token before the answer, in `layer`
        scores      `perception` of results.json: {pointing, energy_in_box} with right, wrong, gap and chance
        looks       [{question, correct, text, kept, pointing, pointing_chance, energy, energy_chance}], null without a box
        examples    [{question, type, clip, correct, asked, options, answer, prediction, shape, seconds, boxes, looks}]; boxes of
                    all labelled clues and the seconds of each block are on the clip's clock. looks: of the kept clues, with
                    `heat`, the attention to every visual token, `shape` [blocks, rows, cols] of them
    lens        {layers, ccr, words, examples} or null
        ccr         `cognition` of results.json: for every layer and k {layer, k, rate, chance, tokens, elsewhere, by_role}
        words       [{layer, inside, outside}] over all clips; inside, outside: [[word, share of tokens that say it first]]
        examples    the same of single clues: [{question, clip, correct, clue, said, layers}]; said: the clue's own words
    space       {clues, points, explained, proximity, nearest} or null
        clues       stated or labelled: whose clues these are
        points      [{role, text, count, pca, tsne}]; role: question, option, clue, inside, outside; pca, tsne: [x, y]
        explained   share of the variance along each of PCA's two axes
        proximity   {pair: {all, right, wrong}} mean cosines, see `diagnose.space`
        nearest     `proximity` of results.json, or null

Estimates are {value, low, high, n}, 95 % intervals by video. Definitions: docs/faithfulness.md, docs/diagnose.md.
"""
